"""From rows to verdicts: the best peer of every case, geometric means against it, cases lost.

Only rows of one run are compared with one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ramify.bench.attention.rows import AttentionRow

OURS = "ramify:"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One case: our fastest method and `auto` against the fastest peer. None without one."""

    suite: str
    shape: str
    heads: str
    sharing: float
    floor_us: float
    ours: AttentionRow | None
    auto: AttentionRow | None
    peer: AttentionRow | None

    @property
    def speedup(self) -> float | None:
        """Time of the fastest peer over that of `auto`, or of our fastest where auto failed."""
        mine = self.auto or self.ours
        if mine is None or self.peer is None or not mine.p50_us or not self.peer.p50_us:
            return None
        return self.peer.p50_us / mine.p50_us


def verdicts(rows: Iterable[AttentionRow]) -> list[Verdict]:
    """A verdict per case, in the order of the rows."""
    cases: dict[tuple[str, str, str], list[AttentionRow]] = {}
    for row in rows:
        cases.setdefault((row.suite, row.shape, row.heads), []).append(row)
    return [_verdict(case_rows) for case_rows in cases.values()]


def _verdict(rows: Sequence[AttentionRow]) -> Verdict:
    timed = [row for row in rows if row.p50_us is not None]
    ours = [row for row in timed if row.provider.startswith(OURS)]
    peers = [row for row in timed if not row.provider.startswith(OURS)]
    first = rows[0]
    return Verdict(
        suite=first.suite,
        shape=first.shape,
        heads=first.heads,
        sharing=first.sharing,
        floor_us=first.floor_us,
        ours=_fastest(ours),
        auto=_fastest([row for row in ours if row.provider == f"{OURS}auto"]),
        peer=_fastest(peers),
    )


def geometric_means(cases: Sequence[Verdict]) -> dict[str, tuple[float, int]]:
    """Mean speed-up over the best peer and number of cases, per heads with and without sharing."""
    groups: dict[str, list[float]] = {}
    for case in cases:
        if case.speedup is not None:
            kind = "sharing above 2" if case.sharing > 2 else "sharing at most 2"
            groups.setdefault(f"{case.heads}, {kind}", []).append(case.speedup)
    return {name: (math.prod(s) ** (1 / len(s)), len(s)) for name, s in groups.items()}


def slower_than_a_peer(cases: Sequence[Verdict]) -> list[Verdict]:
    """The cases in which some peer beats us, the worst first."""
    lost = [case for case in cases if case.speedup is not None and case.speedup < 1]
    return sorted(lost, key=lambda case: case.speedup or 0.0)


def _fastest(rows: Sequence[AttentionRow]) -> AttentionRow | None:
    return min(rows, key=lambda row: row.p50_us or math.inf, default=None)
