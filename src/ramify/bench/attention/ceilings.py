"""What this machine can do at best, measured in the same run, and the floors that follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.attention.plan import HeadShape
from ramify.bench.attention.timers import Timer
from ramify.bench.timer import median_of
from ramify.core.forest import Forest

COPY_BYTES = {"cuda": 4 << 30, "cpu": 64 << 20}
GEMM_SIZE = {"cuda": 8192, "cpu": 512}
REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Copy counts bytes read plus bytes written; gemm is a square product on random numbers."""

    copy_bytes_per_s: float
    gemm_flop_per_s: float


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time one layer can take: each input read once, each output written once."""

    kv_bytes: int
    qo_bytes: int
    flop: int
    bytes_us: float
    tensor_us: float

    @property
    def us(self) -> float:
        """The larger of the two times."""
        return max(self.bytes_us, self.tensor_us)

    @property
    def kind(self) -> str:
        """Which of the two it is."""
        return "tensor" if self.tensor_us > self.bytes_us else "bytes"


def measure_ceilings(timer: Timer, device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Time a large copy and a large matrix product."""
    size = GEMM_SIZE[device.type]
    return Ceilings(
        copy_bytes_per_s=copy_bytes_per_s(timer, device),
        gemm_flop_per_s=2 * size**3 / _gemm_us(timer, device, dtype, size) * 1e6,
    )


def copy_bytes_per_s(timer: Timer, device: torch.device) -> float:
    """Bytes read plus bytes written per second of a copy far larger than any cache."""
    num_bytes = COPY_BYTES[device.type]
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times_us = timer.measure({"copy": lambda: target.copy_(source)}, REPEATS)["copy"]
    return 2 * num_bytes / median_of(times_us) * 1e6


def _gemm_us(timer: Timer, device: torch.device, dtype: torch.dtype, size: int) -> float:
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    torch.matmul(a, b)  # the library picks its kernel on the first call
    return median_of(timer.measure({"gemm": lambda: torch.matmul(a, b)}, REPEATS)["gemm"])


def floor_of(forest: Forest, heads: HeadShape, ceilings: Ceilings) -> Floor:
    """Unique KV, q and out over the copy rate; 4 Hq D flop per visible (row, token) over gemm's."""
    kv_bytes = forest.unique_tokens * heads.token_bytes
    qo_bytes = 2 * forest.num_rows * heads.num_q_heads * heads.head_dim * heads.itemsize
    flop = 4 * heads.num_q_heads * heads.head_dim * forest.path_tokens
    return Floor(
        kv_bytes=kv_bytes,
        qo_bytes=qo_bytes,
        flop=flop,
        bytes_us=(kv_bytes + qo_bytes) / ceilings.copy_bytes_per_s * 1e6,
        tensor_us=flop / ceilings.gemm_flop_per_s * 1e6,
    )
