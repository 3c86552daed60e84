"""From rows to the tables of docs/deft.md; all numbers per tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from ramify.bench.deft.paper import PAPER
from ramify.bench.deft.rows import DeftRow
from ramify.bench.pages import markdown_table

BASELINE, DEFT = "ramify:per_branch", "ramify:flatten"
NONE = "–"

_Group = dict[str, DeftRow]


def tables(rows: Sequence[DeftRow]) -> dict[str, str]:
    """Markdown by the name that the page marks it with.

    Later rows take the place of earlier ones, but for what they do not have: counts and times may
    come from different runs.
    """
    groups: dict[str, _Group] = {}
    for row in rows:
        group = groups.setdefault(row.workload, {})
        group[row.provider] = _over(group.get(row.provider), row)
    counted = [g for g in groups.values() if any(r.kv_bytes_read is not None for r in g.values())]
    timed = [g for g in groups.values() if any(r.attention_ms is not None for r in g.values())]
    made = {}
    if counted:
        made["deft-kv"] = _kv_table(counted)
        made["deft-loaded"] = _methods_table(counted, lambda row: row.kv_bytes_loaded)
        made["deft-partials"] = _methods_table(counted, lambda row: row.partial_bytes)
    if timed:
        made["deft-times"] = _times_table(timed)
    return made


def _kv_table(groups: Sequence[_Group]) -> str:
    """KV traffic in the paper's unit beside the paper's own."""
    header = ["workload", "trees", "steps", "per branch, TB", "DeFT, TB", "less KV"]
    header += ["paper: Radix, TB", "paper: DeFT, TB"]
    lines = []
    for group in groups:
        row, deft, paper = _any(group), group.get(DEFT), PAPER.get(_any(group).workload)
        alone = _per_tree(group.get(BASELINE), lambda row: row.kv_bytes_paper, 1e12)
        once = _per_tree(deft, lambda row: row.kv_bytes_paper, 1e12)
        less = None if alone is None or once is None else 100 * (1 - once / alone)
        lines.append(
            [
                row.workload,
                str(row.num_trees),
                f"{row.num_steps / row.num_trees:.0f}",
                _number(alone, 3),
                _number(once, 3),
                NONE if less is None else f"{less:.1f} %",
                _number(None if paper is None else paper.radix_kv_tb, 2),
                _number(None if paper is None else paper.deft_kv_tb, 2),
            ]
        )
    return markdown_table(header, lines)


def _methods_table(groups: Sequence[_Group], value: Callable[[DeftRow], int | None]) -> str:
    """GB of all layers and steps, a column per method."""
    names = [name for name in _providers(groups) if any(value(g[name]) is not None for g in groups)]
    header = ["workload", "unique KV, GB", *(_short(name) for name in names)]
    lines = []
    for group in groups:
        unique = _per_tree(_any(group), lambda row: row.kv_bytes_unique, 1e9)
        cells = [_number(_per_tree(group.get(name), value, 1e9), 1) for name in names]
        lines.append([_any(group).workload, _number(unique, 1), *cells])
    return markdown_table(header, lines)


def _times_table(groups: Sequence[_Group]) -> str:
    """Attention of all layers and steps, and how many times faster than per branch it is."""
    names = _providers(groups)
    header = ["workload", *(f"{_short(name)}, ms" for name in names), "paper: DeFT over Radix"]
    lines = []
    for group in groups:
        base = _per_tree(group.get(BASELINE), lambda row: row.attention_ms, 1)
        cells = []
        for name in names:
            own = _per_tree(group.get(name), lambda row: row.attention_ms, 1)
            faster = f" ({base / own:.2f}x)" if own and base and name != BASELINE else ""
            cells.append(_number(own, 0) + faster)
        paper = PAPER.get(_any(group).workload)
        quoted = NONE if paper is None else f"{paper.speedup:.2f}x"
        lines.append([_any(group).workload, *cells, quoted])
    return markdown_table(header, lines)


def _over(earlier: DeftRow | None, row: DeftRow) -> DeftRow:
    """`row`, with what only the earlier row of the same trees has."""
    if earlier is None or earlier.num_trees != row.num_trees:
        return row
    missing = [f.name for f in fields(row) if getattr(row, f.name) is None]
    return replace(row, **{name: getattr(earlier, name) for name in missing})


def _any(group: _Group) -> DeftRow:
    return next(iter(group.values()))


def _providers(groups: Sequence[_Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _short(provider: str) -> str:
    return provider.removeprefix("ramify:")


def _per_tree(
    row: DeftRow | None, value: Callable[[DeftRow], float | None], unit: float
) -> float | None:
    found = None if row is None else value(row)
    return None if row is None or found is None else found / row.num_trees / unit


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"
