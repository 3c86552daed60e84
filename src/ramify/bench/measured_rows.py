"""Measured rows put together: the measurement of a pass that counts, and whole generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ramify.profile.suite import ComponentRow, MeasuredRow, SuiteRow

RUN_ORDER = ("graphs", "eager", "compiled")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All components of a model as often as it runs them."""

    name: str
    num_components: int
    flash_s: float  # by the clock
    naive_s: float | None
    seconds: dict[str, float]  # of the device by kind, flash attention
    main_share: float  # of the clock's time, by the component with most FLOPs

    @property
    def speedup(self) -> float | None:
        """How many times longer naive attention takes."""
        return None if self.naive_s is None else self.naive_s / self.flash_s

    def share(self, kinds: Sequence[str]) -> float:
        """Part of the device's time, out of 1."""
        found = sum(self.seconds.get(kind, 0.0) for kind in kinds)
        return found / (sum(self.seconds.values()) or 1.0)


def generations(rows: Sequence[SuiteRow]) -> Iterator[Generation]:
    """Those of models that were measured whole, at their own sizes."""
    for row in rows:
        flash = [best(part) for part in row.components]
        if " " not in row.name and None not in flash:
            yield _generation(row, [one for one in flash if one is not None])


def _generation(row: SuiteRow, flash: Sequence[MeasuredRow]) -> Generation:
    naive = [naive_of(part) for part in row.components]
    calls = [part.calls for part in row.components]
    seconds: dict[str, float] = {}
    for times, measured in zip(calls, flash, strict=True):
        for kind, value in measured.seconds.items():
            seconds[kind] = seconds.get(kind, 0.0) + times * value
    walls = {
        part.name: part.calls * one.wall_s for part, one in zip(row.components, flash, strict=True)
    }
    return Generation(
        name=row.name,
        num_components=len(flash),
        flash_s=sum(walls.values()),
        naive_s=None
        if None in naive
        else sum(times * one.wall_s for times, one in zip(calls, naive, strict=True) if one),
        seconds=seconds,
        main_share=walls[row.main] / sum(walls.values()),
    )


def best(part: ComponentRow, attention: str = "flash") -> MeasuredRow | None:
    """The measurement that says most about the device: of a graph, or else an eager one."""
    found = [row for row in part.measured if row.attention == attention and row.error is None]
    return min(found, key=lambda row: RUN_ORDER.index(row.run), default=None)


def naive_of(part: ComponentRow) -> MeasuredRow | None:
    """The pass with naive attention that ran as the best one with flash attention did."""
    flash = best(part)
    found = [row for row in part.measured if row.attention == "naive" and row.error is None]
    return next((row for row in found if flash is not None and row.run == flash.run), None)


def seconds_of(measured: MeasuredRow, kinds: Sequence[str]) -> float:
    """Device time of some kinds."""
    return sum(measured.seconds.get(kind, 0.0) for kind in kinds)


def busy_s(measured: MeasuredRow) -> float:
    """Device time of all kinds."""
    return sum(measured.seconds.values())


def interval(measured: MeasuredRow) -> str:
    """Milliseconds by the clock: median, lowest and highest."""
    low, high = measured.wall_low_s * 1e3, measured.wall_high_s * 1e3
    return f"{measured.wall_s * 1e3:.2f} ({low:.2f} to {high:.2f})"


def percent(part: float, whole: float = 1.0) -> str:
    """A part of a whole as tables have it."""
    return f"{100 * part / whole:.0f} %" if whole else "-"
