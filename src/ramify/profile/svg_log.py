"""Plots on two logarithmic axes: rooflines, and curves over a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from ramify.profile.svg import COLOURS, LABEL, PLOT, colour, line, svg, text

HEIGHT = 320
GRID = "#e4e7eb"
PREFIXES = {0: "", 3: " k", 6: " M", 9: " G", 12: " T", 15: " P"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One operator on a roofline."""

    intensity: float  # FLOP per byte
    flops_per_s: float
    share: float  # of the time; becomes the area
    kind: str
    title: str
    is_measured: bool = False  # drawn as a ring


@dataclass(frozen=True)
class Axes:
    """Ranges as powers of ten."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point; what lies outside goes to the edge."""
        right = (log10(max(x, 10 ** self.x[0])) - self.x[0]) / (self.x[1] - self.x[0])
        up = (log10(max(y, 10 ** self.y[0])) - self.y[0]) / (self.y[1] - self.y[0])
        return LABEL + PLOT * min(1.0, right), HEIGHT - (HEIGHT - 12) * min(1.0, up)

    def grid(self, xs: Mapping[str, float]) -> list[str]:
        """A line and a name for each given x, and for each power of ten from bottom to top."""
        parts = []
        for name, x in xs.items():
            left, _ = self.place(x, 1.0)
            parts.append(line((left, 12), (left, HEIGHT), GRID))
            parts.append(text(left, HEIGHT + 16, name, "middle"))
        for power in range(ceil(self.y[0]), floor(self.y[1]) + 1):
            _, top = self.place(1.0, 10.0**power)
            parts.append(line((LABEL, top), (LABEL + PLOT, top), GRID))
            parts.append(text(LABEL - 8, top + 4, power_of_ten(power), "end"))
        return parts


def roofline(points: Sequence[Point], roof: tuple[float, float], kinds: Sequence[str]) -> str:
    """FLOP/s over FLOP per byte under the roof of a machine.

    Args:
        roof: FLOP/s and bytes/s of the machine.
    """
    peak, rate = roof
    most = max((point.intensity for point in points), default=1.0)
    top = log10(peak) + 0.3
    lowest = min((point.flops_per_s for point in points), default=rate)
    bottom = min(log10(max(lowest, 1.0)), log10(rate), top - 1)
    axes = Axes((-1.0, max(4.0, ceil(log10(most)))), (floor(bottom), top))
    knee = axes.place(peak / rate, peak)
    powers = range(ceil(axes.x[0]), floor(axes.x[1]) + 1)
    parts = axes.grid({power_of_ten(power): 10.0**power for power in powers})
    parts.append(line(axes.place(0.1, rate * 0.1), knee, "#333"))
    parts.append(line(knee, axes.place(10 ** axes.x[1], peak), "#333"))
    parts += [_mark(point, axes, kinds) for point in points]
    parts.append(text(knee[0] + 10, knee[1] + 26, f"{peak / rate:.0f} FLOP per byte"))
    parts.append(text(LABEL + PLOT, HEIGHT + 34, "FLOP per byte", "end"))
    parts.append(text(LABEL + 6, 10, "FLOP/s"))
    return svg(HEIGHT + 40, parts)


def _mark(point: Point, axes: Axes, kinds: Sequence[str]) -> str:
    left, top = axes.place(point.intensity, point.flops_per_s)
    radius, fill = 3 + 14 * point.share**0.5, colour(point.kind, kinds)
    style = (
        f'fill="none" stroke="{fill}" stroke-width="1.5"'
        if point.is_measured
        else f'fill="{fill}" fill-opacity="0.55"'
    )
    title = f"<title>{escape(point.title)}</title>"
    return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{radius:.1f}" {style}>{title}</circle>'


def curves(xs: Sequence[float], series: Mapping[str, Sequence[float]], labels: str) -> str:
    """Values over a size, a line per name.

    Args:
        xs: above 0, rising.
        series: a value per x; those not above 0 are left out.
        labels: of the x axis and the y axis, divided by a bar.
    """
    values = [value for line in series.values() for value in line if value > 0]
    if not values or len(xs) < 2:
        return ""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    axes = Axes((log10(xs[0]), log10(xs[-1])), (float(low), float(max(high, low + 1))))
    parts = axes.grid({f"{x:g}": x for x in xs})
    for index, values_of in enumerate(series.values()):
        spots = [axes.place(x, y) for x, y in zip(xs, values_of, strict=True) if y > 0]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in spots)
        stroke = COLOURS[index % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{stroke}"/>' for x, y in spots]
    x_label, y_label = labels.split("|")
    parts.append(text(LABEL + PLOT, HEIGHT + 34, x_label, "end"))
    parts.append(text(LABEL + 6, 10, y_label))
    return svg(HEIGHT + 40, parts)


def power_of_ten(power: int) -> str:
    """10^power as people write it: 0.1, 100, 10 T."""
    if power < 0:
        return f"{10.0**power:g}"
    step = min(15, power // 3 * 3)
    return f"{10 ** (power - step)}{PREFIXES[step]}"
