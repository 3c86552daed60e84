"""What starting an engine took: seconds by phase, bytes by use."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Startup:
    """Times of the phases, one after the other, and how the memory of a device is shared out."""

    weights_s: float  # read or drawn, and on the device
    pool_s: float
    kernels_s: float  # folding norms, opening attention; graphs are captured when first needed
    weight_bytes: int
    kv_pool_bytes: int
    step_bytes: int  # reserved for the largest step; 0 on a CPU, where nothing is
    num_slots: int

    @property
    def total_s(self) -> float:
        """All phases."""
        return self.weights_s + self.pool_s + self.kernels_s

    def __str__(self) -> str:
        reserve = f", a step {_gib(self.step_bytes)}" if self.step_bytes else ""
        return (
            f"started in {self.total_s:.1f} s: weights {self.weights_s:.1f}, KV pool "
            f"{self.pool_s:.1f}, kernels {self.kernels_s:.1f}; weights {_gib(self.weight_bytes)}, "
            f"KV pool {_gib(self.kv_pool_bytes)} ({self.num_slots} slots){reserve}"
        )


class Stopwatch:
    """Seconds from lap to lap, what the device still does included."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._now()

    def lap(self) -> float:
        """Seconds since the last lap, or since the start."""
        end = self._now()
        seconds, self._begin = end - self._begin, end
        return seconds

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
