"""A report as one page of HTML: no script, no font, nothing from elsewhere.

Everything on it comes from the report, so a saved report draws the same page again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from ramify.profile.measured import Measured
from ramify.profile.operators.kinds import KINDS, is_attention
from ramify.profile.report import (
    ComponentReport,
    Report,
    covered_share,
    measurements,
    unknown_ops,
)
from ramify.profile.sequence import (
    crossover,
    length_histogram,
    similarity_bytes,
    spatial_temporal,
)
from ramify.profile.svg import columns, legend, scatter, stacked_bars
from ramify.profile.totals import efficiency, overall, totals

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222}
svg{display:block;max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif}
table{border-collapse:collapse}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.legend span{margin-right:1em;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
"""

GIGA, TERA = 1e9, 1e12


def save_page(report: Report, path: Path) -> None:
    """Write the page of a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page as text."""
    title = escape(report.title)
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in _sections(report))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{_head(report)}{body}</body></html>\n"
    )


def _head(report: Report) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in report.sizes.items())
    unknown = ", ".join(unknown_ops(report)) or "none"
    lines = [
        f"Stands for: {report.stands_for}." if report.stands_for else "",
        f"Sizes: {sizes or 'as given'}; batch {report.batch}; {report.steps} steps; guidance "
        f"{'on' if report.guidance else 'off'}. Least times on {report.hardware.name}.",
        f"Operators with a formula move {100 * covered_share(report):.1f} % of the bytes; "
        f"unknown operators: {unknown}.",
    ]
    return "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    yield "Least time by kind of operator, milliseconds", _bars(report)
    yield f"Roofline of {report.main.name}", _roofline(report)
    if report.main.attention:
        yield f"Sequence length over one pass of {report.main.name}", _lengths(report)
        yield "How often each sequence length occurs, and its share of FLOPs", _histogram(report)
        yield "Spatial against temporal attention", _video(report)
    for name, parts, measured in measurements(report):
        yield f"Measured: {name}, {measured.attention} attention", _measured(parts, measured)
    if report.sweep:
        yield f"One pass of {report.main.name} by {report.sweep[0].size}", _sweep(report)


def _bars(report: Report) -> str:
    rows = {}
    for name, parts in [(part.name, [part]) for part in report.components] + [
        ("all", list(report.components))
    ]:
        found = totals(parts)
        rows[f"{name}, naive"] = {kind: total.naive_s * 1e3 for kind, total in found.items()}
        rows[f"{name}, flash"] = {kind: total.flash_s * 1e3 for kind, total in found.items()}
        rows[f"{name}, fused"] = {kind: total.fused_s * 1e3 for kind, total in found.items()}
    return legend(KINDS, list(totals(report.components))) + stacked_bars(rows, KINDS, "ms")


def _roofline(report: Report) -> str:
    machine, part = report.hardware, report.main
    whole = overall(totals([part], once=True).values()).flash_s
    points = [
        (
            group.flops / group.bytes_moved,
            group.flops / group.flash_s,
            group.count * group.flash_s / whole,
            group.kind,
            f"{group.op} {list(group.shapes)} x{group.count}",
        )
        for group in part.groups
        if group.flops and group.bytes_moved
    ]
    return scatter(points, (machine.peak("bfloat16"), machine.bytes_per_s), KINDS)


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
    rows = [
        (f"{entry.q_len}", f"{entry.count}", _share(entry.count_share), _share(entry.flops_share))
        for entry in length_histogram(report.main)
    ]
    return _table(("length", "calls", "of calls", "of attention FLOPs"), rows)


def _video(report: Report) -> str:
    found = spatial_temporal(report.main)
    if not found.temporal_flops:
        return "<p>No temporal attention.</p>"
    rows = [
        ("spatial", f"{found.spatial_flops / TERA:.4f}", f"{found.spatial_s * 1e3:.3f}"),
        ("temporal", f"{found.temporal_flops / TERA:.4f}", f"{found.temporal_s * 1e3:.3f}"),
    ]
    return _table(("one pass", "TFLOP", "least ms, flash"), rows)


def _measured(parts: Sequence[ComponentReport], measured: Measured) -> str:
    if measured.error is not None:
        return f"<p>{escape(measured.error)}</p>"
    of_least = efficiency(parts, measured)
    rows = [
        (
            entry.kind,
            f"{entry.seconds * 1e3:.3f}",
            f"{entry.low_s * 1e3:.3f} to {entry.high_s * 1e3:.3f}",
            _share(of_least.get(entry.kind, 0.0)),
        )
        for entry in measured.kinds
    ]
    note = (
        f"{measured.wall_s * 1e3:.2f} ms by the clock ({measured.wall_low_s * 1e3:.2f} to "
        f"{measured.wall_high_s * 1e3:.2f}, {measured.repeats} runs) on {measured.device}, "
        f"{_share(measured.busy_share)} of it by kind."
    )
    bound = " The GPU waits for the host." if measured.is_launch_bound else ""
    header = ("kind", "ms", "lowest to highest", "least over measured")
    return _table(header, rows) + f"<p>{note}{bound}</p>"


def _sweep(report: Report) -> str:
    rows = {}
    for point in report.sweep:
        times = {kind: seconds * 1e3 for kind, seconds in point.flash_s_by_kind.items()}
        rows[f"{point.size} {point.value}"] = times
    text = stacked_bars(rows, KINDS, "ms") + _sweep_table(report)
    if (value := crossover(report.sweep)) is not None:
        text += f"<p>Temporal attention takes as many FLOPs as spatial from {value:.0f} on.</p>"
    return text


def _sweep_table(report: Report) -> str:
    rows = []
    for point in report.sweep:
        times = point.flash_s_by_kind
        attention = sum(seconds for kind, seconds in times.items() if is_attention(kind))
        tera = sum(point.flops_by_kind.values()) / TERA
        share = _share(attention / sum(times.values()))
        rows.append((f"{point.value}", f"{tera:.3f}", share, f"{point.matrix_bytes / GIGA:.3f}"))
    return _table((report.sweep[0].size, "TFLOP", "attention", "similarity GB"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
