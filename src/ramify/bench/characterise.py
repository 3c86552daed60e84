"""From rows of `ramify profile suite` to the tables of docs/characterise.md.

What the tables set beside each other is what Generative AI Beyond LLMs (arXiv 2312.14385) claims:
shares of convolution and linear layers after flash attention, what flash attention gains, temporal
attention's share of attention. Times are those of CUDA graphs where there are any, as eager ones
may be the host's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ramify.bench.attribution import attribution, waits
from ramify.bench.measured_rows import (
    best,
    busy_s,
    generations,
    interval,
    naive_of,
    percent,
    seconds_of,
)
from ramify.bench.pages import markdown_table
from ramify.bench.paper_claims import claims
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

SHARES = ((CONVOLUTION,), (LINEAR,), ATTENTION, (GROUP_NORM, NORM), (ELEMENTWISE,))


def tables(rows: Sequence[SuiteRow]) -> dict[str, str]:
    """Markdown by the name a page marks it with; none where nothing was measured."""
    made = {
        "measured-passes": _passes(rows),
        "measured-generations": _generations(rows),
        "measured-temporal": _temporal(rows),
        "measured-launches": _launches(rows),
        "measured-claims": claims(rows),
        "measured-waits": waits(rows),
        "measured-attribution": attribution(rows),
    }
    return {name: markdown_table(*table) for name, table in made.items() if table[1]}


Table = tuple[Sequence[str], list[list[str]]]


def _passes(rows: Sequence[SuiteRow]) -> Table:
    """A line per component with flash attention: time, and shares of the device's."""
    header = "one pass|ms|naive ms|naive / flash|convolution|linear|attention|norms|elementwise"
    return header.split("|"), [
        [
            f"`{row.name}`, {part.name}",
            interval(flash),
            "-" if naive is None else interval(naive),
            "-" if naive is None else f"{naive.wall_s / flash.wall_s:.2f}",
            *(percent(seconds_of(flash, kinds), busy_s(flash)) for kinds in SHARES),
        ]
        for row, part, flash, naive in _measured(rows)
    ]


def _generations(rows: Sequence[SuiteRow]) -> Table:
    """A line per model, all its components as often as a generation runs them."""
    header = "a generation|seconds|naive / flash|convolution|linear|attention|of it main"
    return header.split("|"), [
        [
            f"`{one.name}`",
            f"{one.flash_s:.3g}",
            "-" if one.speedup is None else f"{one.speedup:.2f}",
            *(percent(one.share(kinds)) for kinds in SHARES[:3]),
            percent(one.main_share),
        ]
        for one in generations(rows)
        if one.num_components > 1
    ]


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
                percent(temporal, spatial + temporal),
                "-" if naive is None else percent(*_temporal_of_both(naive)),
                *(
                    percent(flash.least_s[kind], flash.seconds[kind])
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
                    interval(eager),
                    interval(graph),
                    f"{eager.wall_s / graph.wall_s:.2f}",
                    percent(busy_s(eager), eager.wall_s)
                    + (", launch-bound" * eager.is_launch_bound),
                ]
            )
    return header.split("|"), lines


def _measured(
    rows: Sequence[SuiteRow],
) -> Iterator[tuple[SuiteRow, ComponentRow, MeasuredRow, MeasuredRow | None]]:
    for row in rows:
        for part in row.components:
            if (flash := best(part)) is not None:
                yield row, part, flash, naive_of(part)


def _temporal_of_both(measured: MeasuredRow) -> tuple[float, float]:
    temporal = measured.seconds.get(TEMPORAL, 0.0)
    return temporal, temporal + measured.seconds.get(SPATIAL, 0.0)


def _frames(row: SuiteRow) -> int:
    return row.sizes.get("frames", 0)
