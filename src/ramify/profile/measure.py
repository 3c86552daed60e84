"""Measured times of a module: by the clock, and by what ran under torch's profiler.

The clock's runs come first and without the profiler, which slows the host down. The traced runs
are held against their own time, and how much longer they took is kept. Weights are random: time
does not depend on them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from pathlib import Path
from time import perf_counter

import torch

from ramify.core.errors import ConfigError, InputError, expected_got
from ramify.profile.attribute import AttentionKinds, Shapes, Work, replayed, works
from ramify.profile.hardware import Hardware
from ramify.profile.measured import Measured
from ramify.profile.operators.record import OpRecord
from ramify.profile.operators.recorder import Recorder
from ramify.profile.perfetto import save_trace
from ramify.profile.roofline import ATTENTIONS, Attention, least_s
from ramify.profile.runs import RUN_MODES, Run, RunMode, attention_kernels, running
from ramify.profile.summarise import failed, summarise
from ramify.profile.trace import TracedPasses, trace_passes
from ramify.profile.window import Window

WARM_UPS = 2

WINDOW_S, MOST_AT_ONCE = 0.02, 32
"""Passes of a GPU run in a row, as a loop of denoising steps waits for none of them, until the way
to the device and back, which they have once, no longer counts."""

MOST_TRACED = 2
"""Traced windows: shares of a device's time are steadier than times."""

Patterns = dict[Attention, list[Work]]
"""An eager pass as it was traced, for each kind of attention."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How passes are measured."""

    device: str = "cpu"  # or cuda
    attentions: tuple[Attention, ...] = ATTENTIONS
    runs: tuple[RunMode, ...] = ("eager",)
    repeats: int = 5  # timed runs; traced are a few of them
    trace: Path | None = None  # a directory for a traced pass of each, for Perfetto
    trace_megabytes: float = 50.0  # of each at most, before it is packed

    def __post_init__(self) -> None:
        if self.repeats < 1 or not set(self.attentions) <= set(ATTENTIONS):
            wanted = "at least 1 repeat, attention among " + ", ".join(ATTENTIONS)
            raise InputError(expected_got("measurement", wanted, (self.repeats, self.attentions)))
        if not self.runs or not set(self.runs) <= set(RUN_MODES):
            raise InputError(expected_got("runs", "some of " + ", ".join(RUN_MODES), self.runs))
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(expected_got("device", "cpu, as no GPU is here", self.device))
        if "graphs" in self.runs and not self.on_gpu:
            raise InputError(expected_got("runs", "graphs on cuda only", self.device))

    @property
    def on_gpu(self) -> bool:
        """Whether kernels are launched rather than called."""
        return self.device.startswith("cuda")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured, and what its recorded pass says about it."""

    name: str
    prepare: Callable[[], Run]  # what one pass needs, as caches grow while they are used; not timed
    modules: Mapping[str, torch.nn.Module]  # on the settings' device; see `Recorder`
    records: Sequence[OpRecord]
    machine: Hardware
    num_frames: int | None = None

    def recorder(self) -> Recorder:
        """One that marks what the modules do."""
        return Recorder(self.modules, self.num_frames)

    def attention_kinds(self) -> AttentionKinds:
        """Kinds of attention by the shapes of queries and keys."""
        return {
            record.shapes[:2]: record.kind
            for record in self.records
            if record.attention is not None
        }

    def least(self, attention: Attention) -> dict[tuple[str, Shapes], float]:
        """Least seconds of one call, by operator and shapes."""
        return {
            (record.op, tuple(shape for shape in record.shapes if shape)): least_s(
                record, self.machine, attention
            )
            for record in self.records
        }


def measure(subject: Subject, settings: MeasureSettings) -> tuple[Measured, ...]:
    """Time a pass with each kind of attention in each mode, and say where its time goes.

    Where memory runs out, a kernel is missing or a pass cannot be captured, the measurement says so
    and the others go on.
    """
    found = []
    patterns: Patterns = {}
    for run, attention in product(settings.runs, settings.attentions):
        try:
            found.append(_measure(subject, settings, run, attention, patterns))
        except Exception as error:  # whatever stops a pass, the bounds and the others stay
            found.append(failed(settings.device, attention, run, error))
            gc.collect()  # what failed may hold on to its tensors in cycles
        give_back(settings.device)
    return tuple(found)


def release(device: str) -> None:
    """Give back what nobody holds any more, modules included, as those lie in cycles."""
    gc.collect()
    give_back(device)


def give_back(device: str) -> None:
    """Give back memory that torch's pools keep, that of graphs included."""
    if device.startswith("cuda"):
        with suppress(RuntimeError):  # an error before may have left the device unusable
            torch.cuda.empty_cache()


def _measure(
    subject: Subject,
    settings: MeasureSettings,
    mode: RunMode,
    attention: Attention,
    patterns: Patterns,
) -> Measured:
    with attention_kernels(attention), torch.inference_mode():
        with running(mode, subject.prepare, subject.modules) as prepare:
            walls, at_once = _clock(prepare, settings.repeats, settings.on_gpu)
            # a compiled pass holds no place for marks, and a replay calls no module
            marking = subject.recorder().marking if mode == "eager" else nullcontext
            traced_repeats = min(settings.repeats, MOST_TRACED)
            traced = trace_passes(prepare, marking, traced_repeats, at_once, on_gpu=settings.on_gpu)
        windows = _windows(subject, settings, traced)
        if mode == "eager":
            patterns[attention] = list(windows[-1].passes[-1])
        elif mode == "graphs":
            pattern = patterns.get(attention) or _eager_pattern(subject, settings)
            windows = [_replayed(window, pattern) for window in windows]
    if settings.trace is not None:
        _save(traced[-1], settings, f"{subject.name}-{attention}-{mode}")
    fields = summarise(walls, windows, subject.least(attention), on_gpu=settings.on_gpu)
    if mode == "graphs":  # one launch for all kernels, whatever the GPU does with its time
        fields["is_launch_bound"] = False
    return Measured(device=settings.device, attention=attention, run=mode, **fields)


def _eager_pattern(subject: Subject, settings: MeasureSettings) -> list[Work]:
    """A traced pass, which a graph's kernels take their labels from."""
    marking = subject.recorder().marking
    traced = trace_passes(subject.prepare, marking, 1, on_gpu=settings.on_gpu)
    return list(_windows(subject, settings, traced)[0].passes[0])


def _replayed(window: Window, pattern: Sequence[Work]) -> Window:
    return replace(window, passes=[replayed(found, pattern) for found in window.passes])


def _clock(prepare: Callable[[], Run], repeats: int, on_gpu: bool) -> tuple[list[float], int]:
    """Seconds of a pass in each repeat, in order, and how many ran at once in each."""
    for _ in range(WARM_UPS):
        pass_s = _seconds(prepare, 1, on_gpu)
    at_once = min(MOST_AT_ONCE, ceil(WINDOW_S / pass_s)) if on_gpu else 1
    return [_seconds(prepare, at_once, on_gpu) for _ in range(repeats)], at_once


def _seconds(prepare: Callable[[], Run], at_once: int, on_gpu: bool) -> float:
    """Seconds of a pass, of so many in a row."""
    passes = [prepare() for _ in range(at_once)]
    _wait(on_gpu)
    begin = perf_counter()
    for run in passes:
        run()
    _wait(on_gpu)
    return (perf_counter() - begin) / at_once


def _windows(
    subject: Subject, settings: MeasureSettings, traced: Sequence[TracedPasses]
) -> list[Window]:
    """What ran in each traced pass. Raises ConfigError where the profiler saw nothing run."""
    kinds = subject.attention_kinds()
    windows = [
        Window(
            one.window,
            [works(part, on_gpu=settings.on_gpu, attention_kinds=kinds) for part in one.passes],
        )
        for one in traced
    ]
    if not windows or not all(all(window.passes) for window in windows):
        wanted = "work of the device in every traced pass"
        got = [len(found) for window in windows for found in window.passes]
        raise ConfigError(expected_got("profiler", wanted, got))
    return windows


def _save(traced: TracedPasses, settings: MeasureSettings, name: str) -> None:
    assert settings.trace is not None
    path = settings.trace / f"{name.replace(' ', '-')}.json.gz"
    save_trace(traced.passes[-1], path, int(settings.trace_megabytes * 1e6))


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
