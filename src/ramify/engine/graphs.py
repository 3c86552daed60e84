"""CUDA graphs of a step, one per padded number of rows and kind, captured when first needed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

WARM_UPS = 2
"""Runs before a capture: kernels are compiled and libraries choose theirs outside of it."""


def padded_rows(rows: int) -> int:
    """The size of the graph that serves `rows` rows: steps of 1/8 to 1/4, a few dozen sizes."""
    if rows <= 8:
        return 1 << (rows - 1).bit_length()
    unit = max(8, 1 << (rows - 1).bit_length() - 3)
    return -(-rows // unit) * unit


class StepGraphs(Generic[K, T]):
    """Captures `body(rows, kind)` once per size and kind of step and replays it.

    Args:
        body: queues a step on the current stream; reads and writes fixed addresses only.
        prepare: called before a capture: the body must be able to run on what it leaves.
    """

    def __init__(self, body: Callable[[int, K], T], prepare: Callable[[int, K], None]) -> None:
        self._body = body
        self._prepare = prepare
        self._graphs: dict[tuple[int, K], tuple[torch.cuda.CUDAGraph, T]] = {}
        self._memory = torch.cuda.graph_pool_handle()

    def capture(self, rows: int, kind: K) -> None:
        """Make sure that a graph is there. Inputs on the device are overwritten if it was not."""
        if (rows, kind) in self._graphs:
            return
        self._prepare(rows, kind)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._body(rows, kind)
        torch.cuda.current_stream().wait_stream(stream)
        # the graphs take turns, so they may share memory
        graph = torch.cuda.CUDAGraph()
        # what other threads do is not captured: NCCL's may look at the device meanwhile
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._memory, stream=stream, capture_error_mode=mode):
            results = self._body(rows, kind)
        self._graphs[rows, kind] = graph, results

    def replay(self, rows: int, kind: K) -> T:
        """Queue a captured step; its results are valid until the next replay of any graph."""
        graph, results = self._graphs[rows, kind]
        graph.replay()
        return results

    def release(self) -> None:
        """Let go of all graphs: a NCCL communicator cannot end while graphs hold on to it."""
        for graph, _ in self._graphs.values():
            graph.reset()
        self._graphs.clear()
