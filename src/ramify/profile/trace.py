"""Decode steps and passes under torch's profiler, and what the device did in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from ramify.profile.events import ON_DEVICE, Event, Range, read_events, split

STEP = "ramify decode step"
"""Name of the range around each traced step."""

PASS, WINDOW = "ramify pass", "ramify window"
"""Names of the ranges around each traced pass, and around those that run in a row."""

WARM_UPS = 3
"""Steps while the profiler is on and nothing is kept: its own start-up falls into them."""


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
class TracedPasses:
    """Passes in a row under the profiler, the device idle before and after all of them."""

    window: Range  # of the host, from before the first launch to after waiting for the device
    passes: tuple[list[Event], ...]  # what each set off


def trace_steps(step: Callable[[], object], num_steps: int, path: Path, *, on_gpu: bool) -> None:
    """Run `step` so often under the profiler, after a few runs more, and write the trace.

    Args:
        path: ends in .json or .json.gz; opens in Perfetto and chrome://tracing.
        on_gpu: trace the device too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with profile(
        activities=_activities(on_gpu),
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
    at_once: int = 1,
    *,
    on_gpu: bool,
) -> list[TracedPasses]:
    """Run passes under the profiler, some in a row and then a wait for the device, so often.

    Args:
        prepare: makes a pass; outside of what is traced.
        marking: open around all of them.
        at_once: passes in a row.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with profile(activities=_activities(on_gpu), record_shapes=True) as profiler, marking():
            _run_window(prepare, 1, on_gpu)  # the profiler's own start-up falls into it
            for _ in range(repeats):
                _run_window(prepare, at_once, on_gpu)
        profiler.export_chrome_trace(str(path))
        events = read_events(path)
    windows, passes = _ranges(events, WINDOW), _ranges(events, PASS)
    parts = list(zip(passes, split(events, passes), strict=True))
    return [
        TracedPasses((begin, end), tuple(part for (at, _), part in parts if begin <= at < end))
        for begin, end in windows[1:]
    ]


def _run_window(prepare: Callable[[], Callable[[], object]], at_once: int, on_gpu: bool) -> None:
    runs = [prepare() for _ in range(at_once)]
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    wait()
    with record_function(WINDOW):
        for run in runs:
            with record_function(PASS):
                run()
        wait()


def _activities(on_gpu: bool) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]


def spans_by_step(path: Path, *, on_gpu: bool) -> list[list[Span]]:
    """What each traced step set off, in order of begin; steps that set off nothing are left out.

    Of a GPU's trace: kernels and copies, found by the call that launched them, as a step may run
    long after it was launched. Of a CPU's: the operators that no other operator called.
    """
    events = read_events(path)
    categories = ON_DEVICE if on_gpu else ("cpu_op",)
    steps = [list(_spans(part, categories)) for part in split(events, _ranges(events, STEP))]
    steps = [sorted(step, key=lambda span: span.begin_us) for step in steps if step]
    return steps if on_gpu else [outermost(step) for step in steps]


def _spans(events: Sequence[Event], categories: Sequence[str]) -> Iterator[Span]:
    for event in events:
        if event.cat in categories:
            yield Span(event.name, event.ts, event.dur)


def _ranges(events: Sequence[Event], name: str) -> list[Range]:
    """Ranges of a name on the host, in order."""
    return sorted(
        (event.ts, event.end_us)
        for event in events
        if event.cat == "user_annotation" and event.name == name
    )


def outermost(spans: Sequence[Span]) -> list[Span]:
    """Those of spans in order of begin that lie in no other."""
    kept: list[Span] = []
    for span in spans:
        if not kept or span.end_us > kept[-1].end_us:
            kept.append(span)
    return kept
