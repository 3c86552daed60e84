"""A report as one page of HTML: no script, no font, nothing from elsewhere.

Everything on it comes from the report, so a saved report draws the same page again.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from ramify.profile.operators.kinds import (
    CONVOLUTION,
    KINDS,
    LINEAR,
    SPATIAL,
    TEMPORAL,
    is_attention,
)
from ramify.profile.page_measured import measured_sections
from ramify.profile.page_style import STYLE, bar_legend, cards, share, table
from ramify.profile.report import Report, covered_share, measurements, unknown_ops
from ramify.profile.sequence import (
    crossover,
    generation_histogram,
    length_histogram,
    similarity_bytes,
    spatial_temporal,
)
from ramify.profile.svg import COLOURS, columns, legend, share_bars, stacked_bars
from ramify.profile.svg_log import Point, curves, roofline
from ramify.profile.totals import flash_speedup, num_params, overall, totals

GIGA, TERA, MILLI = 1e9, 1e12, 1e-3


def save_page(report: Report, path: Path) -> None:
    """Write the page of a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page as text."""
    title = escape(report.title)
    body = "".join(
        f"<section><h2>{escape(name)}</h2>{content}</section>"
        for name, content in (*_sections(report), *measured_sections(report))
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f"<body><h1>{title}</h1>{_head(report)}{body}{_foot(report)}</body></html>\n"
    )


def _head(report: Report) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in report.sizes.items())
    lines = [
        f"Stands for: {report.stands_for}." if report.stands_for else "",
        f"Sizes: {sizes or 'as given'}; batch {report.batch}; {report.steps} steps; guidance "
        f"{'on' if report.guidance else 'off'}.",
    ]
    total = overall(totals(report.components).values())
    facts = {
        "parameters": f"{num_params(report) / GIGA:.3f} B",
        "a generation": f"{total.flops / TERA:.4g} TFLOP",
        f"least time, {report.hardware.name}": f"{total.flash_s:.3g} s",
        "naive over flash": f"{flash_speedup(report.components):.2f} x",
        "largest kind": max(totals(report.components).values(), key=lambda t: t.flash_s).kind,
    }
    return "".join(f"<p>{escape(one)}</p>" for one in lines if one) + cards(facts)


def _foot(report: Report) -> str:
    unknown = ", ".join(unknown_ops(report)) or "none"
    words = (
        f"Operators with a formula move {100 * covered_share(report):.1f} % of the bytes; unknown "
        f"operators: {unknown}. A multiply-add is 2 FLOPs, causal attention counts dense, naive "
        "attention passes four times over its similarity matrix, fused leaves out elementwise "
        f"work. Peaks of {report.hardware.name}: {report.hardware.peak('bfloat16') / TERA:.4g} "
        f"TFLOP/s in bfloat16, {report.hardware.bytes_per_s / TERA:.3g} TB/s. Source: "
        f"{report.source}."
    )
    return f"<footer>{escape(words)}</footer>"


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    yield "Least time of a generation by kind of operator", _bars(report)
    yield f"Roofline of {report.main.name}", _roofline(report)
    if report.main.attention:
        yield f"Sequence length over one pass of {report.main.name}", _lengths(report)
        yield "How often each sequence length occurs, and its share of FLOPs", _histogram(report)
    if spatial_temporal(report.main).temporal_flops:
        yield "Spatial against temporal attention", _video(report)
    if report.sweep:
        yield f"One pass of {report.main.name} by {report.sweep[0].size}", _sweep(report)


def _bars(report: Report) -> str:
    parts = [(part.name, [part]) for part in report.components]
    if len(parts) > 1:
        parts.append(("all", list(report.components)))
    rows = {}
    for name, members in parts:
        found = totals(members).values()
        rows[f"{name}, naive"] = {total.kind: total.naive_s / MILLI for total in found}
        rows[f"{name}, flash"] = {total.kind: total.flash_s / MILLI for total in found}
        rows[f"{name}, fused"] = {total.kind: total.fused_s / MILLI for total in found}
    return bar_legend(totals(report.components)) + stacked_bars(rows, KINDS, "ms")


def _roofline(report: Report) -> str:
    machine, part = report.hardware, report.main
    whole = overall(totals([part], once=True).values()).flash_s
    points = [
        Point(
            intensity=group.flops / group.bytes_moved,
            flops_per_s=group.flops / group.flash_s,
            share=group.count * group.flash_s / whole,
            kind=group.kind,
            title=f"{group.op} {list(group.shapes)} x{group.count}",
        )
        for group in part.groups
        if group.flops and group.bytes_moved
    ]
    shown = [kind for kind in KINDS if any(point.kind == kind for point in points)]
    measured = _measured_points(report)
    note = "Discs: least times. Rings: measured. " if measured else ""
    plot = roofline(points + measured, (machine.peak("bfloat16"), machine.bytes_per_s), KINDS)
    return bar_legend(shown) + plot + f"<p>{note}Areas are shares of the time.</p>"


def _measured_points(report: Report) -> list[Point]:
    """What operators of the main component reached with flash attention, where it is known."""
    part = report.main
    groups = {(group.op, group.shapes): group for group in part.groups if group.flops}
    found = [
        measured
        for _, parts, measured in measurements(report)
        if measured.attention == "flash" and measured.error is None and parts == [part]
    ]
    if not found:
        return []
    return [
        Point(
            intensity=group.flops / group.bytes_moved,
            flops_per_s=entry.count * group.flops / entry.seconds,
            share=entry.seconds / found[-1].busy_s,
            kind=entry.kind,
            title=f"{entry.op} {list(entry.shapes)} x{entry.count}, measured",
            is_measured=True,
        )
        for entry in found[-1].operators
        if (group := groups.get((entry.op, entry.shapes))) is not None and entry.seconds
    ]


def _lengths(report: Report) -> str:
    calls = [call for call in report.main.attention if call.kv_source != "context"]
    titles = [f"{call.kind}: {call.q_len} x {call.kv_len}, {call.module}" for call in calls]
    lengths = [float(call.q_len) for call in calls]
    total, largest = similarity_bytes(report.main)
    note = (
        f"Similarity matrices: {total / GIGA:.3f} GB a pass, the largest {largest / GIGA:.3f} GB."
    )
    return columns(lengths, [str(call.q_len) for call in calls], titles) + f"<p>{note}</p>"


def _histogram(report: Report) -> str:
    names = ("of calls", "of attention FLOPs")
    found = length_histogram(report.main)
    bars = share_bars(
        {f"{entry.q_len}": (entry.count_share, entry.flops_share) for entry in found}, names
    )
    rows = [
        (f"{entry.q_len}", f"{entry.count}", share(entry.count_share), share(entry.flops_share))
        for entry in generation_histogram(report)
    ]
    whole = table(("over a generation, all components", "calls", *names), rows)
    return legend(names, COLOURS) + bars + whole


def _video(report: Report) -> str:
    found = spatial_temporal(report.main)
    names = ("spatial", "temporal")
    pairs: dict[str, tuple[float, float]] = {
        "FLOPs": (found.spatial_flops, found.temporal_flops),
        "least time, flash": (found.spatial_s, found.temporal_s),
    }
    for _, parts, measured in measurements(report):
        if parts == [report.main] and measured.error is None:
            seconds = {entry.kind: entry.seconds for entry in measured.kinds}
            pair = (seconds.get(SPATIAL, 0.0), seconds.get(TEMPORAL, 0.0))
            pairs[f"{measured.run}, {measured.attention}"] = pair
    shares = {
        label: tuple(value / (sum(pair) or 1) for value in pair) for label, pair in pairs.items()
    }
    rows = [
        ("spatial", f"{found.spatial_flops / TERA:.4f}", f"{found.spatial_s / MILLI:.3f}"),
        ("temporal", f"{found.temporal_flops / TERA:.4f}", f"{found.temporal_s / MILLI:.3f}"),
    ]
    text = table(("one pass", "TFLOP", "least ms, flash"), rows)
    return legend(names, COLOURS) + share_bars(shares, names) + text


def _sweep(report: Report) -> str:
    points, size = report.sweep, report.sweep[0].size
    rows = {
        f"{size} {point.value}": {kind: s / MILLI for kind, s in point.flash_s_by_kind.items()}
        for point in points
    }
    times = {
        "attention": [_sum_attention(point.flash_s_by_kind) / MILLI for point in points],
        "convolution": [point.flash_s_by_kind.get(CONVOLUTION, 0.0) / MILLI for point in points],
        "linear": [point.flash_s_by_kind.get(LINEAR, 0.0) / MILLI for point in points],
        "similarity matrices, GB": [point.matrix_bytes / GIGA for point in points],
    }
    plot = curves([point.value for point in points], times, f"{size}|ms, GB")
    text = bar_legend(points[-1].flash_s_by_kind) + stacked_bars(rows, KINDS, "ms")
    text += legend(list(times), COLOURS) + plot + _sweep_table(report)
    if (value := crossover(points)) is not None:
        text += f"<p>Temporal attention takes as many FLOPs as spatial from {value:.0f} on.</p>"
    return text


def _sum_attention(by_kind: dict[str, float]) -> float:
    return sum(seconds for kind, seconds in by_kind.items() if is_attention(kind))


def _sweep_table(report: Report) -> str:
    rows = [
        (
            f"{point.value}",
            f"{sum(point.flops_by_kind.values()) / TERA:.3f}",
            share(_sum_attention(point.flash_s_by_kind) / sum(point.flash_s_by_kind.values())),
            f"{point.matrix_bytes / GIGA:.3f}",
        )
        for point in report.sweep
    ]
    return table((report.sweep[0].size, "TFLOP", "attention", "similarity GB"), rows)
