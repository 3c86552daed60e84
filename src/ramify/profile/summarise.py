"""From the traced repeats of a pass to times by kind, operator, module and kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from ramify.profile.attribute import Shapes, Work
from ramify.profile.measured import KernelTime, KindTime, Measured, ModuleTime, OperatorTime
from ramify.profile.operators.kinds import KINDS
from ramify.profile.window import Window

LAUNCH_BOUND = 0.8
"""A GPU that is busy for less of the time waits for the host."""

MODULE_DEPTH = 4
"""Names in the path of a module down to which times are kept apart."""

Least = Mapping[tuple[str, Shapes], float]
"""Least seconds of one call by operator and shapes."""

Key = TypeVar("Key", bound=Hashable)
KernelKey = tuple[str, tuple[int, ...], tuple[int, ...], str]
Repeats = Sequence[Sequence[tuple[Work, float]]]
"""Of every window what ran in it, and seconds of one pass, see `Window.timed`."""


def summarise(
    walls: Sequence[float], windows: Sequence[Window], least: Least, *, on_gpu: bool
) -> dict[str, Any]:
    """The fields of a `Measured` that come from runs.

    Args:
        walls: seconds of a pass by the clock, not traced.
        windows: traced passes, at least one.
    """
    wall, traced_s = median(walls), median(window.pass_s for window in windows)
    timed = [window.timed() for window in windows]
    num_passes = sum(len(window.passes) for window in windows)
    shares = [window.shares(on_gpu=on_gpu) for window in windows]
    busy, gap = median(one.busy for one in shares), median(one.gap for one in shares)
    return {
        "repeats": len(walls),
        "wall_s": wall,
        "wall_low_s": min(walls),
        "wall_high_s": max(walls),
        "traced_s": traced_s,
        "busy_share": busy,
        "gap_share": gap,
        "waiting_share": median(one.waiting for one in shares),
        "is_launch_bound": on_gpu and (busy + gap) * traced_s / wall < LAUNCH_BOUND,
        "kinds": _kinds(timed),
        "operators": _operators(timed, least, _calls(windows[0].passes[0])),
        "modules": _modules(timed),
        "kernels": _kernels(timed, num_passes) if on_gpu else (),
    }


def failed(device: str, attention: str, run: str, error: BaseException) -> Measured:
    """What is kept of a measurement that could not be made."""
    message = str(error).partition("\n")[0] or type(error).__name__
    return Measured(
        device=device, attention=attention, run=run, repeats=0, traced_s=0.0, error=message
    )


def _kinds(timed: Repeats) -> tuple[KindTime, ...]:
    found = _spread(timed, lambda work: work.label.kind)
    return tuple(KindTime(kind=kind, **found[kind]) for kind in KINDS if kind in found)


def _operators(
    timed: Repeats, least: Least, calls: Counter[tuple[str, str, Shapes]]
) -> tuple[OperatorTime, ...]:
    """Calls of one operator with one set of shapes, those that take most time first."""
    found = _spread(timed, lambda work: (work.label.op, work.label.kind, work.label.shapes))
    return tuple(
        OperatorTime(
            op=op,
            kind=kind,
            shapes=shapes,
            count=calls[op, kind, shapes],
            least_s=calls[op, kind, shapes] * _least_of(least, op, shapes),
            **times,
        )
        for (op, kind, shapes), times in _longest_first(found)
    )


def _least_of(least: Least, op: str, shapes: Shapes) -> float:
    """Compiled code hands an operator the tensor of its result too, after those it reads."""
    return least.get((op, shapes)) or least.get((op, shapes[:-1])) or 0.0


def _calls(found: Sequence[Work]) -> Counter[tuple[str, str, Shapes]]:
    """How often operators ran in a pass: an operator may launch several kernels in a row."""
    counts: Counter[tuple[str, str, Shapes]] = Counter()
    before = None
    for work in found:
        if work.call != before:
            counts[work.label.op, work.label.kind, work.label.shapes] += 1
        before = work.call
    return counts


def _modules(timed: Repeats) -> tuple[ModuleTime, ...]:
    found = _spread(timed, lambda work: ".".join(work.label.module.split(".")[:MODULE_DEPTH]))
    return tuple(
        ModuleTime(module=module, **times) for module, times in _longest_first(found) if module
    )


def _kernels(timed: Repeats, num_passes: int) -> tuple[KernelTime, ...]:
    def key_of(work: Work) -> KernelKey:
        return work.span.name, work.grid, work.block, work.label.kind

    found = _spread(timed, key_of)
    launches = Counter(key_of(work) for run in timed for work, _ in run)
    return tuple(
        KernelTime(
            kernel=name,
            grid=grid,
            block=block,
            kind=kind,
            count=round(launches[name, grid, block, kind] / num_passes),
            seconds=times["seconds"],
        )
        for (name, grid, block, kind), times in _longest_first(found)
    )


def _spread(timed: Repeats, key_of: Callable[[Work], Key]) -> dict[Key, dict[str, float]]:
    """By key: median, lowest and highest seconds of the windows."""
    sums: dict[Key, list[float]] = defaultdict(lambda: [0.0] * len(timed))
    for index, run in enumerate(timed):
        for work, seconds in run:
            sums[key_of(work)][index] += seconds
    return {
        key: {"seconds": median(times), "low_s": min(times), "high_s": max(times)}
        for key, times in sums.items()
    }


def _longest_first(
    found: Mapping[Key, dict[str, float]],
) -> list[tuple[Key, dict[str, float]]]:
    return sorted(found.items(), key=lambda item: -item[1]["seconds"])
