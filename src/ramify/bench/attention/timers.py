"""Timers: CUDA-graph replay with a cold L2 on a GPU, a wall clock on a CPU.

A GPU's replays are queued behind a write and a read of `FLUSH_BYTES` each. They empty the L2 and
keep the device busy while the host queues the rest, so host time is in no number. The read comes
last, as a layer's weights do in a step: what was written would be written back during the replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import torch

from ramify.bench.timer import interleaved

FLUSH_BYTES = 256 << 20  # several times the L2 of any GPU
WARMUPS = 3

Run = Callable[[], Any]


class Timer(Protocol):
    """Times calls that are given together, in interleaved rounds."""

    kind: str

    def ready(self, run: Run) -> tuple[Run, Any]:
        """The run as it will be timed, and its result, which every later call overwrites."""

    def measure(self, runs: Mapping[str, Run], repeats: int) -> dict[str, list[float]]:
        """Microseconds of every call."""

    def synchronize(self) -> None:
        """Wait for the device."""

    def is_lost(self) -> bool:
        """Whether a fault has made the device useless to this process."""

    def release(self) -> None:
        """Give back memory that nobody uses any more."""


class GraphTimer:
    """CUDA graphs between two events, L2 flushed before each."""

    kind = "graph"

    def __init__(self, device: torch.device) -> None:
        self._written = torch.zeros(FLUSH_BYTES // 4, device=device)
        self._read = torch.zeros(FLUSH_BYTES // 4, device=device)
        self._sum = torch.zeros((), device=device)

    def ready(self, run: Run) -> tuple[Run, Any]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()
        return partial(_replay, graph, (run, result)), result

    def measure(self, runs: Mapping[str, Run], repeats: int) -> dict[str, list[float]]:
        marks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {n: [] for n in runs}
        self.synchronize()
        for name in interleaved(list(runs), repeats):
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            self._written.zero_()
            torch.sum(self._read, dim=0, out=self._sum)
            begin.record()
            runs[name]()
            end.record()
            marks[name].append((begin, end))
        self.synchronize()
        return {
            name: [begin.elapsed_time(end) * 1e3 for begin, end in pairs]
            for name, pairs in marks.items()
        }

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def is_lost(self) -> bool:
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False

    def release(self) -> None:
        torch.cuda.empty_cache()


def _replay(graph: torch.cuda.CUDAGraph, kept: tuple[Run, Any]) -> None:
    """Replay; `kept` owns the tensors whose addresses the graph holds."""
    graph.replay()


class WallTimer:
    """A clock around each call; nothing is flushed."""

    kind = "wall"

    def ready(self, run: Run) -> tuple[Run, Any]:
        return run, run()

    def measure(self, runs: Mapping[str, Run], repeats: int) -> dict[str, list[float]]:
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for name in interleaved(list(runs), repeats):
            begin = perf_counter()
            runs[name]()
            samples[name].append((perf_counter() - begin) * 1e6)
        return samples

    def synchronize(self) -> None:
        """A CPU is never behind."""

    def is_lost(self) -> bool:
        return False

    def release(self) -> None:
        """Nothing is kept."""


def timer_for(device: torch.device) -> Timer:
    """The timer of a device."""
    return GraphTimer(device) if device.type == "cuda" else WallTimer()


def timed_plan(plan: Callable[[], None], timer: Timer) -> tuple[float, float]:
    """One plan in microseconds: until the host goes on, and until the device has it too."""
    timer.synchronize()
    begin = perf_counter()
    plan()
    host = perf_counter()
    timer.synchronize()
    return (host - begin) * 1e6, (perf_counter() - begin) * 1e6
