"""Measured times of a module: by the clock, and by kind of operator under torch's profiler.

The clock's runs come first and without the profiler, which slows the host down. From the traced
runs come only the shares of the device's time. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function

from ramify.core.errors import InputError, expected_got
from ramify.profile.attribute import ATTENTION_RANGE, seconds_by_kind
from ramify.profile.operators.recorder import Recorder
from ramify.profile.report import KindTime, Measured
from ramify.profile.roofline import ATTENTIONS, Attention
from ramify.profile.trace import STEP

WARM_UPS = 2
LAUNCH_BOUND = 0.8
"""A GPU that is busy for less of the time waits for the host."""

Run = Callable[[], Any]
"""One pass."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How passes are measured."""

    device: str = "cpu"  # or cuda
    attentions: tuple[Attention, ...] = ATTENTIONS
    repeats: int = 5  # timed runs, and traced ones

    def __post_init__(self) -> None:
        if self.repeats < 1 or not set(self.attentions) <= set(ATTENTIONS):
            wanted = "at least 1 repeat, attention among " + ", ".join(ATTENTIONS)
            raise InputError(expected_got("measurement", wanted, (self.repeats, self.attentions)))
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(expected_got("device", "cpu, as no GPU is here", self.device))


def measure(
    prepare: Callable[[], Run],
    modules: Mapping[str, torch.nn.Module],
    settings: MeasureSettings,
    num_frames: int | None = None,
) -> tuple[Measured, ...]:
    """Time a pass with each kind of attention and say where its time goes.

    Where memory runs out or a kernel is missing, the measurement says so and the others go on.

    Args:
        prepare: makes what one pass needs, as caches grow while they are used; not timed.
        modules: on the settings' device; see `Recorder`.
    """
    found = []
    for attention in settings.attentions:
        try:
            found.append(_measure(prepare, modules, settings, attention, num_frames))
        except RuntimeError as error:  # also out of memory, also a dtype without a kernel here
            found.append(failed(settings, attention, error))
    return tuple(found)


def failed(settings: MeasureSettings, attention: str, error: Exception) -> Measured:
    """What is kept of a measurement that could not be made."""
    message = str(error).partition("\n")[0]
    return Measured(device=settings.device, attention=attention, repeats=0, error=message)


def _measure(
    prepare: Callable[[], Run],
    modules: Mapping[str, torch.nn.Module],
    settings: MeasureSettings,
    attention: Attention,
    num_frames: int | None,
) -> Measured:
    on_gpu = settings.device.startswith("cuda")
    with _kernels(attention), torch.inference_mode():
        walls = _clock(prepare, settings.repeats, on_gpu)
        recorder = Recorder(modules, num_frames, mark=ATTENTION_RANGE)
        traced = _traced(prepare, recorder, settings.repeats, on_gpu)
    return _summary(walls, traced, settings.device, attention)


@contextmanager
def _kernels(attention: Attention) -> Iterator[None]:
    if attention == "flash":
        yield
    else:
        with sdpa_kernel(SDPBackend.MATH):
            yield


def _clock(prepare: Callable[[], Run], repeats: int, on_gpu: bool) -> list[float]:
    """Seconds of each run, in order."""
    seconds = []
    for index in range(WARM_UPS + repeats):
        run = prepare()
        _wait(on_gpu)
        begin = perf_counter()
        run()
        _wait(on_gpu)
        if index >= WARM_UPS:
            seconds.append(perf_counter() - begin)
    return seconds


def _traced(
    prepare: Callable[[], Run], recorder: Recorder, repeats: int, on_gpu: bool
) -> list[dict[str, float]]:
    """Seconds by kind of each run under the profiler."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with profile(activities=activities) as profiler:
            for _ in range(1 + repeats):  # the profiler's own start-up falls into the first
                run = prepare()
                _wait(on_gpu)
                with record_function(STEP), recorder.marking():
                    run()
                    _wait(on_gpu)
        profiler.export_chrome_trace(str(path))
        return _runs(json.loads(path.read_text(encoding="utf-8"))["traceEvents"], on_gpu)[1:]


def _runs(events: Sequence[dict[str, Any]], on_gpu: bool) -> list[dict[str, float]]:
    whole = [event for event in events if event.get("ph") == "X"]
    steps = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in whole
        if event.get("cat") == "user_annotation" and event["name"] == STEP
    )
    return [seconds_by_kind(whole, begin, end, on_gpu=on_gpu) for begin, end in steps]


def _summary(
    walls: Sequence[float],
    traced: Sequence[dict[str, float]],
    device: str,
    attention: Attention,
) -> Measured:
    busy = [sum(run.values()) for run in traced]
    wall = median(walls)
    return Measured(
        device=device,
        attention=attention,
        repeats=len(walls),
        wall_s=wall,
        wall_low_s=min(walls),
        wall_high_s=max(walls),
        busy_share=median(busy) / wall,
        is_launch_bound=device.startswith("cuda") and median(busy) / wall < LAUNCH_BOUND,
        kinds=tuple(
            KindTime(
                kind=kind,
                seconds=median(times := [run.get(kind, 0.0) for run in traced]),
                low_s=min(times),
                high_s=max(times),
            )
            for kind in dict.fromkeys(kind for run in traced for kind in run)
        ),
    )


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
