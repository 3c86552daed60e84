"""Inline SVG: the canvas of all plots, stacked bars, paired bars and columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 880
LABEL = 190  # px left of the plots, for names and numbers
PLOT = WIDTH - LABEL - 100

COLOURS = (
    "#1f5fa8 #7fb3e6 #c0392b #e67e22 #f1c40f #27ae60 #2c9c91 #8e6bbf #b39ddb #9e9e9e #6d4c41 "
    "#455a64 #000000"
).split()


def stacked_bars(rows: Mapping[str, Mapping[str, float]], kinds: Sequence[str], unit: str) -> str:
    """A bar per row, cut by kind; values of all rows on one scale."""
    longest = max((sum(row.values()) for row in rows.values()), default=0.0) or 1.0
    parts = []
    for index, (name, row) in enumerate(rows.items()):
        top, left = 28 * index + 4, float(LABEL)
        total = sum(row.values())
        parts.append(text(LABEL - 8, top + 15, name, "end"))
        for kind, value in row.items():
            width = PLOT * value / longest
            title = f"{kind}: {value:.4g} {unit} ({100 * value / (total or 1):.1f} %)"
            parts.append(rect((left, top), (width, 20), colour(kind, kinds), title))
            left += width
        parts.append(text(left + 6, top + 15, f"{total:.4g} {unit}"))
    return svg(28 * len(rows) + 6, parts)


def share_bars(rows: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """Bars of several shares out of 1 per row, one under another, in the order of `names`."""
    parts, top = [], 4.0
    for label, shares in rows.items():
        parts.append(text(LABEL - 8, top + 7 * len(shares) + 4, label, "end"))
        for index, share in enumerate(shares):
            title = f"{label}: {100 * share:.1f} % {names[index]}"
            fill = COLOURS[index]
            parts.append(rect((LABEL, top), (max(1.0, PLOT * share), 12), fill, title))
            parts.append(text(LABEL + PLOT * share + 6, top + 10, f"{100 * share:.1f} %"))
            top += 14
        top += 8
    return svg(top, parts)


def columns(values: Sequence[float], labels: Sequence[str], titles: Sequence[str]) -> str:
    """A column per value from left to right; heights are square roots, so that small ones show."""
    height, tallest = 160, max(values, default=0.0) or 1.0
    width = PLOT / max(1, len(values))
    parts = [line((LABEL, height), (LABEL + PLOT, height))]
    last = ""
    for index, (value, label, title) in enumerate(zip(values, labels, titles, strict=True)):
        size = (height - 12) * (value / tallest) ** 0.5
        left = LABEL + index * width
        box = (max(1.0, width - 1), size)
        parts.append(rect((left, height - size), box, COLOURS[0], title))
        if label != last:
            parts.append(text(left + width / 2, height + 15, label, "middle"))
        last = label
    return svg(height + 22, parts)


def legend(names: Sequence[str], colours: Sequence[str]) -> str:
    """Names, each with its colour."""
    items = (
        f'<span><i style="background:{fill}"></i>{escape(name)}</span>'
        for name, fill in zip(names, colours, strict=False)
    )
    return f'<p class="legend">{"".join(items)}</p>'


def colour(kind: str, kinds: Sequence[str]) -> str:
    """The same colour for a kind on every plot."""
    return COLOURS[list(kinds).index(kind) % len(COLOURS)]


def svg(height: float, parts: Sequence[str]) -> str:
    """A picture of parts, as wide as all others."""
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box}>{"".join(parts)}</svg>'


def rect(corner: tuple[float, float], size: tuple[float, float], fill: str, title: str) -> str:
    """A box from its upper left corner, with a title that shows under the pointer."""
    (x, y), (width, height) = corner, size
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}"'
    return f'<rect {box} fill="{fill}"><title>{escape(title)}</title></rect>'


def line(begin: tuple[float, float], end: tuple[float, float], stroke: str = "#888") -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = begin, end
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{stroke}"/>'


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    """Words; y is their base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
