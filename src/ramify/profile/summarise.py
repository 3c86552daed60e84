"""From the traced repeats of a pass to times by kind, operator, module and kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from ramify.profile.attribute import Shapes, Work
from ramify.profile.measured import KernelTime, KindTime, Measured, ModuleTime, OperatorTime
from ramify.profile.operators.kinds import KINDS
from ramify.profile.timeline import own_times, short_gaps_us

LAUNCH_BOUND = 0.8
"""A GPU that is busy for less of the time waits for the host."""

GAP_US = 5.0
"""Pauses up to this long are what a GPU needs from one kernel to the next."""

MODULE_DEPTH = 4
"""Names in the path of a module down to which times are kept apart."""

Least = Mapping[tuple[str, Shapes], float]
"""Least seconds of one call by operator and shapes."""

Key = TypeVar("Key", bound=Hashable)
Repeats = Sequence[Sequence[tuple[Work, float]]]
"""Of every repeat what ran, and the seconds in which nothing before it ran any more."""


def summarise(
    walls: Sequence[float], traced: Sequence[Sequence[Work]], least: Least, *, on_gpu: bool
) -> dict[str, Any]:
    """The fields of a `Measured` that come from runs.

    Args:
        walls: seconds of each run by the clock, not traced.
        traced: what ran in each traced run, in order of begin.
    """
    wall = median(walls)
    timed = [
        [(work, us * 1e-6) for work, us in zip(run, own_times(spans), strict=True)]
        for run in traced
        if (spans := [work.span for work in run])
    ]
    gaps_us = [short_gaps_us([work.span for work in run], GAP_US) for run in traced]
    gap_s = median(gaps_us) * 1e-6 if on_gpu and gaps_us else 0.0
    busy = median(sum(s for _, s in run) for run in timed) if timed else 0.0
    return {
        "repeats": len(walls),
        "wall_s": wall,
        "wall_low_s": min(walls),
        "wall_high_s": max(walls),
        "busy_share": busy / wall,
        "gap_share": gap_s / wall,
        "is_launch_bound": on_gpu and (busy + gap_s) / wall < LAUNCH_BOUND,
        "kinds": _kinds(timed),
        "operators": _operators(timed, least),
        "modules": _modules(timed),
        "kernels": _kernels(timed) if on_gpu else (),
    }


def failed(device: str, attention: str, run: str, error: BaseException) -> Measured:
    """What is kept of a measurement that could not be made."""
    message = str(error).partition("\n")[0] or type(error).__name__
    return Measured(device=device, attention=attention, run=run, repeats=0, error=message)


def _kinds(timed: Repeats) -> tuple[KindTime, ...]:
    found = _spread(timed, lambda work: work.label.kind)
    return tuple(KindTime(kind=kind, **found[kind][1]) for kind in KINDS if kind in found)


def _operators(timed: Repeats, least: Least) -> tuple[OperatorTime, ...]:
    """Calls of one operator with one set of shapes, those that take most time first."""
    found = _spread(timed, lambda work: (work.label.op, work.label.kind, work.label.shapes))
    calls = _calls(timed)
    return tuple(
        OperatorTime(
            op=op,
            kind=kind,
            shapes=shapes,
            count=calls[op, kind, shapes],
            least_s=calls[op, kind, shapes] * _least_of(least, op, shapes),
            **times,
        )
        for (op, kind, shapes), (_, times) in _longest_first(found)
    )


def _least_of(least: Least, op: str, shapes: Shapes) -> float:
    """Compiled code hands an operator the tensor of its result too, after those it reads."""
    return least.get((op, shapes)) or least.get((op, shapes[:-1])) or 0.0


def _calls(timed: Repeats) -> Counter[tuple[str, str, Shapes]]:
    """How often operators ran in a pass: an operator may launch several kernels in a row."""
    counts: Counter[tuple[str, str, Shapes]] = Counter()
    before = None
    for work, _ in timed[0] if timed else ():
        if work.call != before:
            counts[work.label.op, work.label.kind, work.label.shapes] += 1
        before = work.call
    return counts


def _modules(timed: Repeats) -> tuple[ModuleTime, ...]:
    found = _spread(timed, lambda work: ".".join(work.label.module.split(".")[:MODULE_DEPTH]))
    return tuple(
        ModuleTime(module=module, **times) for module, (_, times) in _longest_first(found) if module
    )


def _kernels(timed: Repeats) -> tuple[KernelTime, ...]:
    found = _spread(timed, lambda work: (work.span.name, work.grid, work.block, work.label.kind))
    return tuple(
        KernelTime(
            kernel=name,
            grid=grid,
            block=block,
            kind=kind,
            count=count,
            seconds=times["seconds"],
        )
        for (name, grid, block, kind), (count, times) in _longest_first(found)
    )


def _spread(
    timed: Repeats, key_of: Callable[[Work], Key]
) -> dict[Key, tuple[int, dict[str, float]]]:
    """By key: launches in a pass, and median, lowest and highest seconds of the repeats."""
    sums: dict[Key, list[float]] = defaultdict(lambda: [0.0] * len(timed))
    counts: Counter[Key] = Counter()
    for index, run in enumerate(timed):
        for work, seconds in run:
            key = key_of(work)
            sums[key][index] += seconds
            counts[key] += 1
    return {
        key: (
            round(counts[key] / len(timed)),
            {"seconds": median(times), "low_s": min(times), "high_s": max(times)},
        )
        for key, times in sums.items()
    }


def _longest_first(
    found: Mapping[Key, tuple[int, dict[str, float]]],
) -> list[tuple[Key, tuple[int, dict[str, float]]]]:
    return sorted(found.items(), key=lambda item: -item[1][1]["seconds"])
