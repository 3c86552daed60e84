"""Decode steps and passes under torch's profiler, and what the device did in each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

STEP = "ramify decode step"
"""Name of the range around each traced step."""

WARM_UPS = 3
"""Steps while the profiler is on and nothing is kept: its own start-up falls into them."""

CALLS = ("cuda_runtime", "cuda_driver")
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, slots=True)
class Span:
    """A kernel or copy of a GPU, or an operator of a CPU; microseconds on the trace's clock."""

    name: str
    begin_us: float
    duration_us: float

    @property
    def end_us(self) -> float:
        """When it was over."""
        return self.begin_us + self.duration_us


@dataclass(frozen=True)
class Trace:
    """Passes under the profiler."""

    events: list[dict[str, Any]]  # complete ones, with shapes
    windows: list[tuple[float, float]]  # of each pass on the host; microseconds, on their clock


def trace_steps(step: Callable[[], object], num_steps: int, path: Path, *, on_gpu: bool) -> None:
    """Run `step` so often under the profiler, after a few runs more, and write the trace.

    Args:
        path: ends in .json or .json.gz; opens in Perfetto and chrome://tracing.
        on_gpu: trace the device too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=WARM_UPS, active=num_steps, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
    ) as profiler:
        for index in range(WARM_UPS + num_steps):
            with record_function(STEP):
                step()
            if on_gpu and index == WARM_UPS + num_steps - 1:
                torch.cuda.synchronize()  # what is launched belongs into the trace
            profiler.step()


def trace_passes(
    prepare: Callable[[], Callable[[], object]],
    marking: Callable[[], AbstractContextManager[None]],
    repeats: int,
    *,
    on_gpu: bool,
) -> Trace:
    """Run passes one by one under the profiler, the device idle before and after each.

    Args:
        prepare: makes a pass; outside of what is traced.
        marking: open around each pass.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with profile(activities=activities, record_shapes=True) as profiler:
            for _ in range(1 + repeats):  # the profiler's own start-up falls into the first
                run = prepare()
                wait()
                with record_function(STEP), marking():
                    run()
                    wait()
        profiler.export_chrome_trace(str(path))
        events = _complete(path)
    return Trace(events, _ranges(events)[1:])


def spans_by_step(path: Path, *, on_gpu: bool) -> list[list[Span]]:
    """What each traced step set off, in order of begin; steps that set off nothing are left out.

    Of a GPU's trace: kernels and copies, found by the call that launched them, as a step may run
    long after it was launched. Of a CPU's: the operators that no other operator called.
    """
    events = _complete(path)
    ranges = _ranges(events)
    if on_gpu:
        return _by_range(launches(events), ranges)
    operators = [(event["ts"], event) for event in events if event.get("cat") == "cpu_op"]
    return [outermost(step) for step in _by_range(operators, ranges)]


def launches(events: Sequence[dict[str, Any]]) -> list[tuple[float | None, dict[str, Any]]]:
    """What ran on the device, each with the moment of the call that launched it, where known."""
    called = {
        event["args"]["correlation"]: event["ts"]
        for event in events
        if event.get("cat") in CALLS and "correlation" in event.get("args", {})
    }
    return [
        (called.get(event["args"].get("correlation")), event)
        for event in events
        if event.get("cat") in ON_DEVICE
    ]


def _complete(path: Path) -> list[dict[str, Any]]:
    """Events with a begin and a duration."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]


def _ranges(events: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Windows of the host around each step, in order."""
    return sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "user_annotation" and event["name"] == STEP
    )


def _by_range(
    placed: Sequence[tuple[float | None, dict[str, Any]]], ranges: Sequence[tuple[float, float]]
) -> list[list[Span]]:
    """Sort events into the ranges that their moments lie in."""
    steps: list[list[Span]] = [[] for _ in ranges]
    for moment, event in placed:
        if moment is None:
            continue
        for step, (begin, end) in zip(steps, ranges, strict=True):
            if begin <= moment < end:
                step.append(Span(event["name"], event["ts"], event["dur"]))
    return [sorted(step, key=lambda span: span.begin_us) for step in steps if step]


def outermost(spans: Sequence[Span]) -> list[Span]:
    """Those of spans in order of begin that lie in no other."""
    kept: list[Span] = []
    for span in spans:
        if not kept or span.end_us > kept[-1].end_us:
            kept.append(span)
    return kept
