"""How much of a GPU's time is told apart: of passes that it bounds, and how many those are.

A pass whose GPU waits for the host says nothing here: what is told apart of it is how far the host
keeps up. So those are counted, and the others listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ramify.bench.measured_rows import interval
from ramify.profile.measured import Waits
from ramify.profile.suite import MeasuredRow, SuiteRow

LOWEST, HIGHEST = 0.98, 1.02
"""What is told apart of a pass, should nothing be missing and nothing be counted twice."""

WORDS: dict[Waits, str] = {
    "never": "the GPU is the bottleneck",
    "traced": "the GPU waits for the host, but under the profiler only",
    "always": "launch-bound: the GPU waits for the host",
}

Table = tuple[Sequence[str], list[list[str]]]


def attribution(rows: Sequence[SuiteRow]) -> Table:
    """A line per pass that a GPU bounds: the profiler's cost, and where the traced time goes."""
    header = (
        "one pass that the GPU bounds|attention, run|ms|traced / untraced|kernels|"
        "between kernels|waiting for the host|told apart"
    )
    return header.split("|"), [
        [
            name,
            f"{measured.attention}, {measured.run}",
            interval(measured),
            f"{measured.tracing_overhead:.2f}",
            *(
                f"{100 * share:.1f} %"
                for share in (
                    measured.busy_share,
                    measured.gap_share,
                    measured.waiting_share,
                    measured.attributed_share,
                )
            ),
        ]
        for name, measured in _on_gpu(rows)
        if measured.waits == "never"
    ]


def waits(rows: Sequence[SuiteRow]) -> Table:
    """How many passes wait for the host, and of those that do not, how many are told apart."""
    found = [measured for _, measured in _on_gpu(rows)]
    header = (
        "passes on a GPU",
        "how many",
        f"{100 * LOWEST:.0f} to {100 * HIGHEST:.0f} % told apart",
        "the same, waits included",
    )
    lines = []
    for kind, words in WORDS.items():
        passes = [one for one in found if one.waits == kind]
        told = [one.attributed_share for one in passes]
        waited = [one.attributed_share + one.waiting_share for one in passes]
        counts = [sum(LOWEST <= share <= HIGHEST for share in shares) for shares in (told, waited)]
        lines.append([words, str(len(passes)), *map(str, counts)])
    return header, lines if found else []


def _on_gpu(rows: Sequence[SuiteRow]) -> Iterator[tuple[str, MeasuredRow]]:
    for row in rows:
        for part in row.components:
            for measured in part.measured:
                if measured.error is None and measured.device.startswith("cuda"):
                    yield f"`{row.name}`, {part.name}", measured
