"""CUDA graphs of a step, one per padded number of rows, captured when first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

WARM_UPS = 2
"""Runs before a capture: kernels are compiled and libraries choose theirs outside of it."""


def padded_rows(rows: int) -> int:
    """The size of the graph that serves `rows` rows: steps of 1/8 to 1/4, a few dozen sizes."""
    if rows <= 8:
        return 1 << (rows - 1).bit_length()
    unit = max(8, 1 << (rows - 1).bit_length() - 3)
    return -(-rows // unit) * unit


class StepGraphs(Generic[T]):
    """Captures `body(rows)` once per size and replays it.

    Args:
        body: queues a step on the current stream; reads and writes fixed addresses only.
        prepare: called before a size is captured: the body must be able to run on what it leaves.
    """

    def __init__(self, body: Callable[[int], T], prepare: Callable[[int], None]) -> None:
        self._body = body
        self._prepare = prepare
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, T]] = {}
        self._memory = torch.cuda.graph_pool_handle()

    def capture(self, rows: int) -> None:
        """Make sure that a size is there. Inputs on the device are overwritten if it was not."""
        if rows in self._graphs:
            return
        self._prepare(rows)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._body(rows)
        torch.cuda.current_stream().wait_stream(stream)
        # the sizes take turns, so they may share memory
        graph = torch.cuda.CUDAGraph()
        # what other threads do is not captured: NCCL's may look at the device meanwhile
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._memory, stream=stream, capture_error_mode=mode):
            results = self._body(rows)
        self._graphs[rows] = graph, results

    def replay(self, rows: int) -> T:
        """Queue a captured step; its results are valid until the next replay of any size."""
        graph, results = self._graphs[rows]
        graph.replay()
        return results

    def release(self) -> None:
        """Let go of all sizes: a NCCL communicator cannot end while graphs hold on to it."""
        for graph, _ in self._graphs.values():
            graph.reset()
        self._graphs.clear()
