"""16-bit activations as sums of two fp8 numbers, so that fp8 weights multiply as they are.

Maths        x = down * (hi + lo), with down a power of two per row and BLOCK_K columns, hi the top
             four bits of x / down and lo the top four of the rest. bfloat16 has eight bits: nothing
             is lost but what lies below 2 ** -17 of the largest number of a block.
Why          Hopper multiplies fp8 by fp8 straight from shared memory. Widening weights to bfloat16
             takes two instructions a weight or more, and memory leaves time for three (counted).
Grid         split_kernel: (rows, K / BLOCK_K)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ramify.models.kernels.rms import launch_options

BLOCK_K = 128


@triton.jit
def split(x):
    """x [M, K] to (hi, lo, down): fp8 twice [M, K], and a float32 factor [M]."""
    x = x.to(tl.float32)
    largest = tl.max(tl.abs(x), axis=1).to(tl.int32, bitcast=True)
    # the largest number comes to lie in [128, 256); zeros and the tiniest keep a factor above zero
    exponent = tl.maximum(largest >> 23, 8)
    up = ((254 + 7 - exponent) << 23).to(tl.float32, bitcast=True)
    down = ((exponent - 7) << 23).to(tl.float32, bitcast=True)
    x = x * up[:, None]
    # cut off behind three bits of mantissa, which keeps NaN; the rest is rounded to as many. By
    # bits, as a compiler may contract what rounds by adding and subtracting
    hi = (x.to(tl.int32, bitcast=True) & -0x100000).to(tl.float32, bitcast=True)
    rest = (x - hi).to(tl.int32, bitcast=True)
    lo = ((rest + 0x80000) & -0x100000).to(tl.float32, bitcast=True)
    return hi.to(tl.float8e4nv), lo.to(tl.float8e4nv), down


@triton.jit
def split_kernel(
    hi_ptr, lo_ptr, down_ptr,   # [rows, K] fp8 twice, [rows, K / BLOCK_K] fp32
    x_ptr, num_k,               # [rows, K]
    BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_K columns of one row."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = column < num_k
    x = tl.load(x_ptr + row * num_k + column, mask=mask, other=0.0)
    hi, lo, down = split(x[None, :])
    dst = row * num_k + column[None, :]
    tl.store(hi_ptr + dst, hi, mask=mask[None, :])
    tl.store(lo_ptr + dst, lo, mask=mask[None, :])
    tl.store(down_ptr + row * tl.num_programs(1) + tl.program_id(1) + tl.arange(0, 1), down)


def split_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split x [rows, K], contiguous.

    Returns:
        hi, lo [rows, K] float8_e4m3fn and down [rows, K / BLOCK_K, rounded up] float32.
    """
    assert x.is_contiguous()
    rows, num_k = x.shape
    hi, lo = torch.empty(2, rows, num_k, dtype=torch.float8_e4m3fn, device=x.device)
    down = torch.empty(rows, triton.cdiv(num_k, BLOCK_K), device=x.device)
    split_kernel[tuple(down.shape)](
        hi, lo, down, x, num_k, BLOCK_K=BLOCK_K, num_warps=1, **launch_options(x.device)
    )
    return hi, lo, down
