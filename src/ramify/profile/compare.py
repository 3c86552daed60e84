"""Two reports side by side: FLOPs and least times kind by kind, and what both have measured."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.profile.measured import Measured, agree
from ramify.profile.operators.kinds import KINDS
from ramify.profile.report import Report, measurements
from ramify.profile.totals import ALL, Total, overall, totals


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One kind in both; 0 where a model has no such operator."""

    kind: str
    flops: tuple[int, int]
    flash_s: tuple[float, float]
    time_share: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MeasuredPair:
    """One pass by the clock in both: medians, and the interval of each."""

    name: str
    attention: str
    run: str
    wall_s: tuple[float, float]
    low_s: tuple[float, float]
    high_s: tuple[float, float]
    agree: bool  # whether the intervals meet


def compare_measured(first: Report, second: Report) -> list[MeasuredPair]:
    """A row per pass that both have measured in the same way."""
    others = {_key(name, one): one for name, _, one in measurements(second) if one.error is None}
    return [
        _pair(name, one, others[_key(name, one)])
        for name, _, one in measurements(first)
        if one.error is None and _key(name, one) in others
    ]


def _key(name: str, measured: Measured) -> tuple[str, str, str]:
    return name, measured.attention, measured.run


def _pair(name: str, first: Measured, second: Measured) -> MeasuredPair:
    return MeasuredPair(
        name=name,
        attention=first.attention,
        run=first.run,
        wall_s=(first.wall_s, second.wall_s),
        low_s=(first.wall_low_s, second.wall_low_s),
        high_s=(first.wall_high_s, second.wall_high_s),
        agree=agree(first, second),
    )


def compare(first: Report, second: Report) -> list[Difference]:
    """A row per kind that occurs in either, and one for all."""
    sides = [totals(report.components) for report in (first, second)]
    wholes = [overall(side.values()) for side in sides]
    kinds = [kind for kind in KINDS if any(kind in side for side in sides)]
    rows = [_row(kind, [side.get(kind) for side in sides], wholes) for kind in kinds]
    return [*rows, _row(ALL, list(wholes), wholes)]


def _row(kind: str, pair: list[Total | None], wholes: list[Total]) -> Difference:
    flops = [0 if total is None else total.flops for total in pair]
    times = [0.0 if total is None else total.flash_s for total in pair]
    shares = [s / max(whole.flash_s, 1e-30) for s, whole in zip(times, wholes, strict=True)]
    return Difference(
        kind=kind,
        flops=(flops[0], flops[1]),
        flash_s=(times[0], times[1]),
        time_share=(shares[0], shares[1]),
    )
