"""LeanAttention's claim as tables: stream-K over a fixed split and over none, by context length.

Rows are those of suite `lean` in one run: `ramify:lean` (stream-K), `ramify:per_branch` (every path
cut into the same number of parts, as Flash-Decoding does) and `ramify:uncut` (one unit per path and
KV head, as FlashAttention-2 decodes), one kernel under all three.
Source: LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from ramify.bench.attention.rows import AttentionRow
from ramify.bench.pages import markdown_table

LEAN, FIXED, UNCUT = "ramify:lean", "ramify:per_branch", "ramify:uncut"
OTHERS = {FIXED: "fixed split", UNCUT: "no split", "flashinfer:decode": "FlashInfer decode"}

_Case = dict[str, AttentionRow]


def tables(rows: Sequence[AttentionRow]) -> dict[str, str]:
    """Markdown by name: `lean-contexts` (means) and `lean-cases` (every case)."""
    cases: dict[tuple[str, str], _Case] = {}
    for row in rows:
        if row.suite == "lean" and row.p50_us is not None:
            cases.setdefault((row.heads, row.shape), {})[row.provider] = row
    timed = [case for case in cases.values() if LEAN in case]
    if not timed:
        return {}
    return {"lean-contexts": _contexts(timed), "lean-cases": _cases(timed)}


def _contexts(cases: Sequence[_Case]) -> str:
    """Geometric means per context length, of ragged batches, and of all."""
    groups: dict[str, list[_Case]] = {}
    for case in sorted(cases, key=_context):
        if not _is_ragged(case):
            groups.setdefault(f"{_context(case) / 1024:g}k", []).append(case)
    groups["ragged batches"] = [case for case in cases if _is_ragged(case)]
    groups["all"] = list(cases)
    header = ["context", "cases", *(f"over {name}" for name in OTHERS.values())]
    header.append("slower than the fixed split")
    lines = []
    for name, group in groups.items():
        if group:
            lost = sum(ratio < 1 for ratio in _ratios(group, FIXED))
            means = [_summary(list(_ratios(group, other))) for other in OTHERS]
            lines.append([name, str(len(group)), *means, str(lost)])
    return markdown_table(header, lines)


def _cases(cases: Sequence[_Case]) -> str:
    header = ["heads, requests x context", "lean, us", "% of floor"]
    header += [f"{name}, us" for name in OTHERS.values()]
    lines = []
    for case in cases:
        lean = case[LEAN]
        cells = [f"{lean.p50_us:.1f}", f"{lean.pct_of_floor:.0f}"]
        for other in OTHERS:
            ratio = next(_ratios([case], other), None)
            cells.append("–" if ratio is None else f"{case[other].p50_us:.1f} ({ratio:.2f}x)")
        lines.append([f"{lean.heads}, {lean.shape}", *cells])
    return markdown_table(header, lines)


def _ratios(cases: Iterable[_Case], other: str) -> Iterator[float]:
    """Time of `other` over that of lean, where both have one."""
    for case in cases:
        theirs = case[other].p50_us if other in case else None
        mine = case[LEAN].p50_us
        if theirs and mine:
            yield theirs / mine


def _summary(ratios: Sequence[float]) -> str:
    """Geometric mean, least to most."""
    if not ratios:
        return "–"
    mean = math.prod(ratios) ** (1 / len(ratios))
    return f"{mean:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def _context(case: _Case) -> float:
    return case[LEAN].unique_tokens / case[LEAN].num_rows


def _is_ragged(case: _Case) -> bool:
    return "~" in case[LEAN].shape
