"""From rows of the engine to the table of docs/deft.md; seconds per tree."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.bench.deft.engine_rows import DeftEngineRow
from ramify.bench.deft.paper import PAPER
from ramify.bench.pages import markdown_table

TABLE = "deft-engine"
DEFT = "flatten"
NONE = "–"
HEADER = (
    "workload, method",
    "steps",
    "in graphs",
    "prefill, s",
    "decode, s",
    "end to end, s",
    "step, ms",
    "host, ms",
    "plan, ms",
    "decode",
    "end to end",
    "paper: decode",
)


def engine_table(rows: Sequence[DeftEngineRow]) -> dict[str, str]:
    """Markdown by the name that the page marks it with; empty without rows.

    A later row takes the place of an earlier one of the same workload and method. Ratios are times
    of the baseline over those of the row.
    """
    groups: dict[str, dict[str, DeftEngineRow]] = {}
    for row in rows:
        groups.setdefault(row.workload, {})[row.method] = row
    lines = [_line(row, group) for group in groups.values() for row in group.values()]
    return {TABLE: markdown_table(HEADER, lines)} if lines else {}


def _line(row: DeftEngineRow, group: dict[str, DeftEngineRow]) -> list[str]:
    return [
        f"{row.workload}, {row.method}",
        f"{row.num_steps / row.num_trees:.0f}",
        f"{100 * row.num_graph_steps / row.num_steps:.0f} %",
        f"{row.prefill_s / row.num_trees:.3f}",
        f"{row.decode_s / row.num_trees:.2f}",
        f"{row.end_to_end_s / row.num_trees:.2f}",
        f"{row.step_ms:.2f}",
        f"{row.host_ms:.2f}",
        f"{row.plan_ms:.2f}",
        *_ratios(row, group.get(row.baseline)),
        _paper(row),
    ]


def _ratios(row: DeftEngineRow, base: DeftEngineRow | None) -> list[str]:
    """Over the baseline, if that grew the same trees."""
    if base is None or base is row:
        return [NONE, NONE]
    if (base.num_trees, base.num_steps) != (row.num_trees, row.num_steps):
        return [NONE, NONE]
    decode = base.decode_s / row.decode_s
    return [f"{decode:.2f}x", f"{base.end_to_end_s / row.end_to_end_s:.2f}x"]


def _paper(row: DeftEngineRow) -> str:
    """The paper's ratio for its own method over its own baseline."""
    paper = PAPER.get(row.workload)
    return NONE if paper is None or row.method != DEFT else f"{paper.decode_speedup:.2f}x"
