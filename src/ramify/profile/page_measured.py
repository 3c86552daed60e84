"""The part of a page that shows what was measured, and what of it operators and modules took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ramify.profile.measured import WAITS, Measured
from ramify.profile.operators.kinds import KINDS
from ramify.profile.page_style import bar_legend, details, share, table
from ramify.profile.report import ComponentReport, Report, measurements
from ramify.profile.svg import stacked_bars
from ramify.profile.totals import efficiency

MILLI = 1e-3
LONGEST = 20  # operators and modules that are listed


def measured_sections(report: Report) -> Iterator[tuple[str, str]]:
    """Sections by title; none where nothing was measured."""
    found = measurements(report)
    good = [(f"{name}, {_how(one)}", one) for name, _, one in found if one.error is None]
    if good:
        yield "Measured device time of a pass by kind of operator", _bars(good)
    for name, parts, measured in found:
        yield f"Measured: {name}, {_how(measured)}", _measured(parts, measured)
    if report.cache:
        yield "Cache hit rates by kind of operator", _cache(report)


def _how(measured: Measured) -> str:
    """`flash attention`, and how it ran where that is not eagerly."""
    run = "" if measured.run == "eager" else f", {measured.run}"
    return f"{measured.attention} attention{run}"


def _bars(found: Sequence[tuple[str, Measured]]) -> str:
    rows = {
        name.removesuffix(" attention"): {e.kind: e.seconds / MILLI for e in measured.kinds}
        for name, measured in found
    }
    shown = [kind for kind in KINDS if any(kind in row for row in rows.values())]
    return bar_legend(shown) + stacked_bars(rows, KINDS, "ms")


def _measured(parts: Sequence[ComponentReport], measured: Measured) -> str:
    if measured.error is not None:
        return f'<p class="warn">{escape(measured.error)}</p>'
    of_least = efficiency(parts, measured)
    rows = [
        (
            entry.kind,
            f"{entry.seconds / MILLI:.3f}",
            share(entry.seconds / (measured.busy_s or 1)),
            f"{entry.low_s / MILLI:.3f} to {entry.high_s / MILLI:.3f}",
            share(of_least.get(entry.kind, 0.0)),
        )
        for entry in measured.kinds
    ]
    header = ("kind", "ms", "share", "lowest to highest", "least over measured")
    return _note(measured) + table(header, rows) + _operators(measured) + _modules(measured)


def _note(measured: Measured) -> str:
    words = (
        f"{measured.wall_s / MILLI:.2f} ms by the clock ({measured.wall_low_s / MILLI:.2f} to "
        f"{measured.wall_high_s / MILLI:.2f}, {measured.repeats} runs) on {measured.device}; "
        f"{measured.tracing_overhead:.2f} times as long under the profiler, and of that "
        f"{share(measured.attributed_share)} told apart: {share(measured.busy_share)} kernels or "
        f"operators, {share(measured.gap_share)} pauses between them. "
        f"{share(measured.waiting_share)} waiting for the host."
    )
    waits = WAITS[measured.waits]
    warning = f'<p class="warn">{waits[0].upper()}{waits[1:]}.</p>' if waits else ""
    return f"<p>{escape(words)}</p>{warning}"


def _operators(measured: Measured) -> str:
    rows = [
        (
            f"{entry.op} {' '.join('x'.join(map(str, shape)) for shape in entry.shapes)}",
            entry.kind,
            str(entry.count),
            f"{entry.seconds / MILLI:.3f}",
            share(entry.least_s / entry.seconds) if entry.least_s and entry.seconds else "-",
        )
        for entry in measured.operators[:LONGEST]
    ]
    header = ("operator and shapes", "kind", "calls", "ms", "least over measured")
    return details("Longest operators", table(header, rows)) if rows else ""


def _modules(measured: Measured) -> str:
    rows = [
        (entry.module, f"{entry.seconds / MILLI:.3f}", share(entry.seconds / measured.busy_s))
        for entry in measured.modules[:LONGEST]
    ]
    return details("Longest modules", table(("module", "ms", "share"), rows)) if rows else ""


def _cache(report: Report) -> str:
    rows = [
        (row.kind, str(row.launches), share(row.l1_hit_rate), share(row.l2_hit_rate))
        for row in report.cache
    ]
    return table(("kind", "launches", "L1 hits", "L2 hits"), rows)
