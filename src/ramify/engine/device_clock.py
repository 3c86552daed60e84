"""How long the device is at work, added up while the host runs ahead."""

from __future__ import annotations

import time
from collections import deque

import torch


class DeviceClock:
    """Seconds between entering and leaving, on the device's own time line; spans do not nest.

    On a GPU two events a span; nothing waits until `total_s` is asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._begin_s = 0.0
        self._spans: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def __enter__(self) -> None:
        if not self._on_gpu:
            self._begin_s = time.perf_counter()
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._spans.append((begin, end))

    def __exit__(self, *error: object) -> None:
        if not self._on_gpu:
            self._seconds += time.perf_counter() - self._begin_s
            return
        self._spans[-1][1].record()
        self._add_done()

    def total_s(self) -> float:
        """Seconds of all spans so far; waits for the device."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
            self._add_done()
        return self._seconds

    def _add_done(self) -> None:
        """Add the spans that are over, so that their number stays small."""
        while self._spans and self._spans[0][1].query():
            begin, end = self._spans.popleft()
            self._seconds += begin.elapsed_time(end) / 1e3
