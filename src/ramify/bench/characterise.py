"""From rows of `ramify profile suite` to the tables of docs/characterise.md.

What the tables set beside each other is what Generative AI Beyond LLMs (arXiv 2312.14385) claims:
shares of convolution and linear layers after flash attention, what flash attention gains, temporal
attention's share of attention. Times are those of CUDA graphs where there are any, as eager ones
may be the host's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ramify.bench.pages import markdown_table
from ramify.profile.operators.kinds import (
    ATTENTION,
    CONVOLUTION,
    ELEMENTWISE,
    GROUP_NORM,
    LINEAR,
    NORM,
    SPATIAL,
    TEMPORAL,
)
from ramify.profile.suite import ComponentRow, MeasuredRow, SuiteRow

RUN_ORDER = ("graphs", "eager", "compiled")
SHARES = ((CONVOLUTION,), (LINEAR,), ATTENTION, (GROUP_NORM, NORM), (ELEMENTWISE,))


def best(part: ComponentRow, attention: str) -> MeasuredRow | None:
    """The measurement that says most about the device: of a graph, or else an eager one."""
    found = [row for row in part.measured if row.attention == attention and row.error is None]
    return min(found, key=lambda row: RUN_ORDER.index(row.run), default=None)


def tables(rows: Sequence[SuiteRow]) -> dict[str, str]:
    """Markdown by the name a page marks it with; none where nothing was measured."""
    made = {
        "measured-passes": _passes(rows),
        "measured-generations": _generations(rows),
        "measured-temporal": _temporal(rows),
        "measured-launches": _launches(rows),
    }
    return {name: markdown_table(*table) for name, table in made.items() if table[1]}


Table = tuple[Sequence[str], list[list[str]]]


def _passes(rows: Sequence[SuiteRow]) -> Table:
    """A line per component with flash attention: time, its shares, its part told apart."""
    header = (
        "one pass|ms|naive ms|naive / flash|convolution|linear|attention|norms|elementwise|"
        "between kernels|told apart"
    )
    return header.split("|"), [
        [
            f"`{row.name}`, {part.name}",
            _interval(flash),
            "-" if naive is None else _interval(naive),
            "-" if naive is None else f"{naive.wall_s / flash.wall_s:.2f}",
            *(_percent(_seconds(flash, kinds), _busy(flash)) for kinds in SHARES),
            _percent(flash.gap_share),
            _percent(flash.busy_share + flash.gap_share),
        ]
        for row, part, flash, naive in _measured(rows)
    ]


def _generations(rows: Sequence[SuiteRow]) -> Table:
    """A line per model, all its components as often as a generation runs them."""
    header = "a generation|seconds|naive / flash|convolution|linear|attention|of it main"
    lines = []
    for row in rows:
        flash = {part.name: best(part, "flash") for part in row.components}
        naive = {part.name: best(part, "naive") for part in row.components}
        if None in flash.values() or len(row.components) < 2:
            continue
        wall = _whole(row, flash)
        shares = [_generation_share(row, flash, kinds) for kinds in SHARES[:3]]
        main = row.component(row.main)
        main_row = flash[row.main]
        assert main_row is not None
        lines.append(
            [
                f"`{row.name}`",
                f"{wall:.3g}",
                "-" if None in naive.values() else f"{_whole(row, naive) / wall:.2f}",
                *map(_percent, shares),
                _percent(main.calls * main_row.wall_s, wall),
            ]
        )
    return header.split("|"), lines


def _temporal(rows: Sequence[SuiteRow]) -> Table:
    """A line per length of a video: temporal against spatial attention."""
    header = (
        "frames|spatial / temporal FLOPs|temporal / spatial time|temporal, of both|"
        "the same, naive|spatial: least / measured|temporal: least / measured"
    )
    lines = []
    for row, part, flash, naive in sorted(_measured(rows), key=lambda one: _frames(one[0])):
        spatial, temporal = (flash.seconds.get(kind, 0.0) for kind in (SPATIAL, TEMPORAL))
        if not (spatial and temporal):
            continue
        flops = part.flops_by_kind
        lines.append(
            [
                f"{_frames(row)} (`{row.name}`, {part.name})",
                f"{flops[SPATIAL] / flops[TEMPORAL]:.1f}",
                f"{temporal / spatial:.2f}",
                _percent(temporal, spatial + temporal),
                "-" if naive is None else _percent(*_temporal_of_both(naive)),
                *(
                    _percent(flash.least_s[kind], flash.seconds[kind])
                    for kind in (SPATIAL, TEMPORAL)
                ),
            ]
        )
    return header.split("|"), lines


def _launches(rows: Sequence[SuiteRow]) -> Table:
    """A line per component that ran both eagerly and as a graph: who waits for whom."""
    header = "one pass, flash|eager ms|graph ms|eager / graph|GPU busy, eager"
    lines = []
    for row in rows:
        for part in row.components:
            by_run = {
                found.run: found
                for found in part.measured
                if found.attention == "flash" and found.error is None
            }
            if not {"eager", "graphs"} <= set(by_run):
                continue
            eager, graph = by_run["eager"], by_run["graphs"]
            lines.append(
                [
                    f"`{row.name}`, {part.name}",
                    _interval(eager),
                    _interval(graph),
                    f"{eager.wall_s / graph.wall_s:.2f}",
                    _percent(eager.busy_share) + (", launch-bound" * eager.is_launch_bound),
                ]
            )
    return header.split("|"), lines


def _measured(
    rows: Sequence[SuiteRow],
) -> Iterator[tuple[SuiteRow, ComponentRow, MeasuredRow, MeasuredRow | None]]:
    for row in rows:
        for part in row.components:
            if (flash := best(part, "flash")) is not None:
                yield row, part, flash, best(part, "naive")


def _whole(row: SuiteRow, found: dict[str, MeasuredRow | None]) -> float:
    """Seconds of a generation by the clock."""
    return sum(
        part.calls * measured.wall_s
        for part in row.components
        if (measured := found[part.name]) is not None
    )


def _generation_share(
    row: SuiteRow, found: dict[str, MeasuredRow | None], kinds: Sequence[str]
) -> float:
    """Share of kinds in the device time of a generation."""
    pairs = [(part.calls, one) for part in row.components if (one := found[part.name]) is not None]
    return sum(calls * _seconds(one, kinds) for calls, one in pairs) / sum(
        calls * _busy(one) for calls, one in pairs
    )


def _temporal_of_both(measured: MeasuredRow) -> tuple[float, float]:
    temporal = measured.seconds.get(TEMPORAL, 0.0)
    return temporal, temporal + measured.seconds.get(SPATIAL, 0.0)


def _frames(row: SuiteRow) -> int:
    return row.sizes.get("frames", 0)


def _seconds(measured: MeasuredRow, kinds: Sequence[str]) -> float:
    return sum(measured.seconds.get(kind, 0.0) for kind in kinds)


def _busy(measured: MeasuredRow) -> float:
    return sum(measured.seconds.values())


def _interval(measured: MeasuredRow) -> str:
    low, high = measured.wall_low_s * 1e3, measured.wall_high_s * 1e3
    return f"{measured.wall_s * 1e3:.2f} ({low:.2f} to {high:.2f})"


def _percent(part: float, whole: float = 1.0) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
