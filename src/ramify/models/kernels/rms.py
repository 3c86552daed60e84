"""What the kernels behind an RMSNorm share: the row's scale, and waiting for the launch before."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

# a row is read in pieces of at most this many elements: 32 registers a thread of four warps
MAX_BLOCK_X = 4096


@triton.jit
def inverse_rms(row_ptr, eps, HIDDEN: tl.constexpr, BLOCK_X: tl.constexpr):
    """1 / sqrt(mean(x ** 2) + eps) of one row of HIDDEN elements, in float32."""
    offs = tl.arange(0, BLOCK_X)
    squares = tl.zeros([BLOCK_X], tl.float32)
    for begin in tl.static_range(0, HIDDEN, BLOCK_X):
        x = tl.load(row_ptr + begin + offs, mask=begin + offs < HIDDEN, other=0.0).to(tl.float32)
        squares += x * x
    return tl.rsqrt(tl.sum(squares) / HIDDEN + eps)


def block_x(hidden: int) -> int:
    """Elements of a row that `inverse_rms` reads at once."""
    return min(MAX_BLOCK_X, triton.next_power_of_2(hidden))


def is_interpreted() -> bool:
    return bool(triton.knobs.runtime.interpret)


@cache
def launch_options(device: torch.device) -> dict[str, Any]:
    """Programmatic dependent launch where the GPU has it: the kernel is there when its input is.

    With PDL a kernel may start before the one ahead of it ends. It waits (gdc_wait) in every
    program, and until then touches nothing but weights: so whatever came earlier has ended too.
    """
    if is_interpreted() or torch.cuda.get_device_capability(device) < (9, 0):
        return {"PDL": False}
    return {"PDL": True, "launch_pdl": True}
