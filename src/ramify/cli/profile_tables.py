"""Reports of models as tables: components, kinds of operators, sequence lengths, sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from ramify.profile.measured import WAITS, Measured, MeasuredPass
from ramify.profile.operators.kinds import TEMPORAL, is_attention
from ramify.profile.report import (
    ComponentReport,
    Report,
    SweepPoint,
    covered_share,
    unknown_ops,
)
from ramify.profile.sequence import crossover, length_histogram, length_range, similarity_bytes
from ramify.profile.suite import SuiteRow
from ramify.profile.totals import Total, efficiency, flash_speedup, intensity, overall, totals

TERA, GIGA, MILLI = 1e12, 1e9, 1e-3
LONGEST = 8  # operators and modules of a measured pass that are listed


def component_table(report: Report) -> Table:
    """A line per component: size, passes, FLOPs, least times, what flash attention gains."""
    columns = "B params|passes|batch|TFLOP|flash ms|naive ms|fused ms|naive/flash|FLOP/B"
    table = _table("component", columns)
    for part in report.components:
        total = overall(totals([part]).values())
        table.add_row(
            part.name,
            f"{part.num_params / GIGA:.3f}",
            str(part.calls),
            str(part.batch),
            f"{total.flops / TERA:.3f}",
            *(f"{s / MILLI:.2f}" for s in (total.flash_s, total.naive_s, total.fused_s)),
            f"{flash_speedup([part]):.2f}",
            f"{intensity(part):.1f}",
        )
    return table


def kind_table(report: Report) -> Table:
    """A line per kind of operator over a whole generation."""
    table = _table("kind", "calls|TFLOP|share|GB|flash ms|share|naive ms|share")
    found = totals(report.components)
    total = overall(found.values())
    for row in found.values():
        table.add_row(row.kind, *_kind_cells(row, total))
    table.add_row(total.kind, *_kind_cells(total, total), style="bold")
    return table


def _kind_cells(row: Total, total: Total) -> list[str]:
    return [
        str(row.calls),
        f"{row.flops / TERA:.3f}",
        percent(row.flops, total.flops),
        f"{row.bytes_moved / GIGA:.2f}",
        f"{row.flash_s / MILLI:.2f}",
        percent(row.flash_s, total.flash_s),
        f"{row.naive_s / MILLI:.2f}",
        percent(row.naive_s, total.naive_s),
    ]


def length_table(part: ComponentReport) -> Table:
    """Sequence lengths of self-attention in one pass."""
    table = _table(f"sequence length ({part.name})", "calls|of calls|of attention FLOPs")
    for entry in length_histogram(part):
        table.add_row(
            str(entry.q_len),
            str(entry.count),
            percent(entry.count_share),
            percent(entry.flops_share),
        )
    return table


def measured_table(name: str, parts: Sequence[ComponentReport], measured: Measured) -> Table:
    """Device time of a measured pass by kind, and the part of it that is the least time."""
    first = f"measured: {name}, {measured.attention}, {measured.run}"
    table = _table(first, "ms|share|lowest|highest|least over measured")
    of_least = efficiency(parts, measured)
    total = sum(entry.seconds for entry in measured.kinds)
    for entry in measured.kinds:
        table.add_row(
            entry.kind,
            f"{entry.seconds / MILLI:.3f}",
            percent(entry.seconds, total),
            f"{entry.low_s / MILLI:.3f}",
            f"{entry.high_s / MILLI:.3f}",
            percent(of_least.get(entry.kind, 0.0)),
        )
    return table


def operator_table(measured: Measured) -> Table:
    """The operators that take most of a measured pass, and what part of it is the least time."""
    table = _table("longest operators", "kind|calls|ms|share|least over measured")
    for entry in measured.operators[:LONGEST]:
        shapes = " ".join("x".join(map(str, shape)) for shape in entry.shapes)
        table.add_row(
            f"{entry.op} {shapes}",
            entry.kind,
            str(entry.count),
            f"{entry.seconds / MILLI:.3f}",
            percent(entry.seconds, measured.busy_s),
            percent(entry.least_s, entry.seconds) if entry.least_s else "-",
        )
    return table


def module_table(measured: Measured) -> Table:
    """The modules that take most of a measured pass."""
    table = _table("longest modules", "ms|share")
    for entry in measured.modules[:LONGEST]:
        share = percent(entry.seconds, measured.busy_s)
        table.add_row(entry.module, f"{entry.seconds / MILLI:.3f}", share)
    return table


def measured_note(measured: Measured) -> str:
    """The clock's word on a measured pass."""
    return (
        f"{measured.wall_s / MILLI:.2f} ms by the clock ({measured.wall_low_s / MILLI:.2f} to "
        f"{measured.wall_high_s / MILLI:.2f}, {measured.repeats} runs) on {measured.device}"
        f"{traced_words(measured)}"
    )


def traced_words(measured: MeasuredPass) -> str:
    """What the profiler adds to the clock's word: its cost, what is told apart, who waits."""
    waits = WAITS[measured.waits]
    return (
        f"; traced x{measured.tracing_overhead:.2f} as long, "
        f"{percent(measured.attributed_share)} of it told apart{', ' * bool(waits)}{waits}"
    )


def cache_table(report: Report) -> Table:
    """Cache hit rates by kind, from Nsight Compute."""
    table = _table("kind", "launches|L1 hits|L2 hits")
    for row in report.cache:
        table.add_row(
            row.kind, str(row.launches), percent(row.l1_hit_rate), percent(row.l2_hit_rate)
        )
    return table


def sweep_table(points: Sequence[SweepPoint]) -> Table:
    """One pass at each size."""
    table = _table(points[0].size, "TFLOP|flash ms|attention|of it temporal|similarity GB")
    for point in points:
        times = point.flash_s_by_kind
        attention = sum(s for kind, s in times.items() if is_attention(kind))
        table.add_row(
            str(point.value),
            f"{sum(point.flops_by_kind.values()) / TERA:.3f}",
            f"{sum(times.values()) / MILLI:.2f}",
            percent(attention, sum(times.values())),
            percent(times.get(TEMPORAL, 0.0), attention),
            f"{point.matrix_bytes / GIGA:.3f}",
        )
    return table


def suite_table(rows: Sequence[SuiteRow]) -> Table:
    """A line per model of the suite."""
    table = _table("preset", "main|params B|TFLOP|flash s|naive|conv|linear|attn|elem|cover")
    for row in rows:
        shares = (row.convolution, row.linear, row.attention, row.elementwise, row.covered)
        table.add_row(
            row.name,
            row.main,
            f"{row.num_params / GIGA:.3f}",
            f"{row.flops / TERA:.4g}",
            f"{row.flash_s:.3g}",
            f"x{row.flash_speedup:.2f}",
            *(f"{100 * share:.0f} %" for share in shares),
        )
    return table


def measured_lines(row: SuiteRow) -> Iterator[str]:
    """A line for each measurement of a row: the clock, and what the profiler tells apart."""
    for part in row.components:
        for measured in part.measured:
            if measured.error is None:
                yield (
                    f"{row.name}, {part.name}, {measured.attention}, {measured.run}: "
                    f"{measured.wall_s / MILLI:.2f} ms ({measured.wall_low_s / MILLI:.2f} to "
                    f"{measured.wall_high_s / MILLI:.2f}){traced_words(measured)}"
                )


def notes(report: Report) -> Iterator[str]:
    """What the tables leave out: lengths, matrices, coverage, conventions."""
    part = report.main
    if part.attention:
        whole, to_mean = length_range(part)
        matrices, largest = similarity_bytes(part)
        yield (
            f"sequence lengths of {part.name}: {whole:.0f}x from shortest to longest, longest "
            f"{to_mean:.1f}x the mean; similarity matrices {matrices / GIGA:.3f} GB a pass, "
            f"largest {largest / GIGA:.3f} GB"
        )
    if (value := crossover(report.sweep)) is not None:
        yield f"temporal attention takes as many FLOPs as spatial from {value:.0f} on"
    sizes = ", ".join(f"{name} {value}" for name, value in report.sizes.items())
    yield f"sizes: {sizes or 'as given'}; batch {report.batch}; {report.source}"
    yield (
        f"least times on {report.hardware.name} ({report.hardware.ridge:.0f} FLOP/B ridge); "
        "a multiply-add is 2 FLOPs, causal attention counts dense"
    )
    yield f"covered: {percent(covered_share(report))} of bytes by operators with a formula"
    for op, count in unknown_ops(report).items():
        yield (
            f"unknown: {op}, {count} calls; teach it with ramify.profile.operators.formulas."
            f"register_formula({op!r}, kind, flops)"
        )


def percent(part: float, whole: float = 1.0) -> str:
    """A share as people read it."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _table(first: str, columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for name in columns.split("|"):
        table.add_column(name, justify="right")
    return table
