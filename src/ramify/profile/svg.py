"""Plots as inline SVG: stacked bars, points on logarithmic axes, steps and bars of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH = 760
LABEL = 150  # px left of the plots, for names and numbers
PLOT = WIDTH - LABEL - 60

COLOURS = (
    "#1f5fa8 #7fb3e6 #c0392b #e67e22 #f1c40f #27ae60 #2c9c91 #8e6bbf #b39ddb #9e9e9e #6d4c41 "
    "#455a64 #000000"
).split()


def stacked_bars(rows: Mapping[str, Mapping[str, float]], kinds: Sequence[str], unit: str) -> str:
    """A bar per row, cut by kind; values of all rows on one scale."""
    longest = max((sum(row.values()) for row in rows.values()), default=0.0) or 1.0
    parts = []
    for index, (name, row) in enumerate(rows.items()):
        top, left = 30 * index + 6, float(LABEL)
        parts.append(_text(LABEL - 8, top + 15, name, "end"))
        for kind, value in row.items():
            width = PLOT * value / longest
            title = f"{kind}: {value:.4g} {unit} ({100 * value / sum(row.values()):.1f} %)"
            parts.append(_rect(left, top, width, 20, colour(kind, kinds), title))
            left += width
        parts.append(_text(left + 6, top + 15, f"{sum(row.values()):.4g} {unit}"))
    return _svg(30 * len(rows) + 12, parts)


def legend(kinds: Sequence[str], shown: Sequence[str]) -> str:
    """Names of the kinds that occur, each with its colour."""
    items = (
        f'<span><i style="background:{colour(kind, kinds)}"></i>{escape(kind)}</span>'
        for kind in shown
    )
    return f'<p class="legend">{"".join(items)}</p>'


def columns(values: Sequence[float], labels: Sequence[str], titles: Sequence[str]) -> str:
    """A column per value from left to right; heights are square roots, so that small ones show."""
    height, tallest = 150, max(values, default=0.0) or 1.0
    width = PLOT / max(1, len(values))
    parts = [_line(LABEL, height, LABEL + PLOT, height)]
    last = ""
    for index, (value, label, title) in enumerate(zip(values, labels, titles, strict=True)):
        size = (height - 12) * (value / tallest) ** 0.5
        left = LABEL + index * width
        parts.append(_rect(left, height - size, max(1.0, width - 1), size, COLOURS[0], title))
        if label != last:
            parts.append(_text(left + width / 2, height + 14, label, "middle"))
        last = label
    return _svg(height + 22, parts)


def scatter(
    points: Sequence[tuple[float, float, float, str, str]],
    roof: tuple[float, float],
    kinds: Sequence[str],
) -> str:
    """A roofline: FLOP/s that a point can reach by its FLOP per byte, both logarithmic.

    Args:
        points: FLOP per byte, FLOP/s, share of time (area), kind, title.
        roof: FLOP/s and bytes/s of the machine.
    """
    peak, rate = roof
    height = 300
    x_low, x_high = -1.0, max(4.0, ceil(log10(max((p[0] for p in points), default=1.0))))
    y_high = log10(peak) + 0.3
    y_low = min(log10(rate) + x_low, y_high - 1)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (log10(max(x, 10**x_low)) - x_low) / (x_high - x_low)
        up = (log10(max(y, 10**y_low)) - y_low) / (y_high - y_low)
        return LABEL + PLOT * right, height - (height - 10) * up

    knee = place(peak / rate, peak)
    parts = [
        _line(*place(10**x_low, rate * 10**x_low), *knee),
        _line(*knee, *place(10**x_high, peak)),
    ]
    for power in range(ceil(x_low), floor(x_high) + 1):
        left, _ = place(10.0**power, peak)
        parts.append(_text(left, height + 15, f"1e{power}", "middle"))
    for power in range(ceil(y_low), floor(y_high) + 1):
        parts.append(_text(LABEL - 8, place(1.0, 10.0**power)[1], f"1e{power}", "end"))
    for x, y, share, kind, title in points:
        left, top = place(x, y)
        radius = 3 + 14 * share**0.5
        parts.append(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{radius:.1f}" fill="{colour(kind, kinds)}" '
            f'fill-opacity="0.6"><title>{escape(title)}</title></circle>'
        )
    parts.append(_text(LABEL + PLOT, height + 30, "FLOP per byte", "end"))
    parts.append(_text(LABEL + 4, 10, "FLOP/s"))
    return _svg(height + 36, parts)


def colour(kind: str, kinds: Sequence[str]) -> str:
    """The same colour for a kind on every plot."""
    return COLOURS[list(kinds).index(kind) % len(COLOURS)]


def _svg(height: float, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str) -> str:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}"'
    return f'<rect {box} fill="{fill}"><title>{escape(title)}</title></rect>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#888"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
