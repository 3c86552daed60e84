"""Few 16-bit rows times an fp8 weight: as fast as the weight can be read.

Maths        out[m, n] = (out[m, n] +) scale[n] * sum_k x[m, k] * weight[n, k]
Grid         (row tiles, N tiles, splits of K): programs that share weights lie side by side
Tile         weight [BLOCK_N, BLOCK_K] on the left: few rows then waste little of a tensor core. x
             comes as two fp8 pieces (pieces.py), split here when rows are few, else beforehand.
Precision    Hopper adds up fp8 products with about 14 bits; every BLOCK_K of them go to float32
Split K      partial sums go through memory; the last program of a tile to arrive adds them up in
             the order of K. Only the count of arrivals is atomic: no bit depends on their order.
Traffic      weight once; x once an N tile, from L2; 8 bytes an output element and split
Source       DeepSeek-V3, 2024 (fp8 sums moved to float32 every 128 products); reference:
             ../quantise.py::Fp8Weight
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ramify.models.kernels.pieces import BLOCK_K, split, split_rows
from ramify.models.kernels.rms import launch_options
from ramify.models.quantise import Fp8Weight

MAX_ROWS = 256
# a split has at least this many blocks of K
MIN_BLOCKS = 4


@dataclass(frozen=True)
class Tile:
    """A launch for up to `rows` rows; `per_sm` programs are resident on a multiprocessor.

    splits_x: whether every program splits x, or a kernel of its own does so once.
    """

    rows: int
    block_m: int
    block_n: int
    splits_x: bool
    num_warps: int
    stages: int
    per_sm: int


TILES = (
    Tile(16, 16, 64, True, num_warps=4, stages=4, per_sm=3),
    Tile(32, 32, 64, True, num_warps=4, stages=4, per_sm=3),
    Tile(64, 64, 128, False, num_warps=4, stages=3, per_sm=2),
    Tile(MAX_ROWS, 128, 128, False, num_warps=8, stages=4, per_sm=1),
)


@triton.jit
def _multiply(
    x_ptr, lo_ptr, down_ptr, weight_ptr, row, is_row, channel, is_channel,
    num_k, num_blocks, block_begin, block_end,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """[BLOCK_N, BLOCK_M] float32: the products of some blocks of K, without scale."""
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    weight_row = weight_ptr + channel.to(tl.int64)[:, None] * num_k
    x_row = row[:, None] * num_k
    for block in tl.range(block_begin, block_end, num_stages=STAGES):
        k = block * BLOCK_K + tl.arange(0, BLOCK_K)
        is_k = (k < num_k)[None, :]
        weight = tl.load(weight_row + k[None, :], mask=is_channel[:, None] & is_k, other=0.0)
        hi = tl.load(x_ptr + x_row + k[None, :], mask=is_row[:, None] & is_k, other=0.0)
        if down_ptr is None:
            hi, lo, down = split(hi)
        else:
            lo = tl.load(lo_ptr + x_row + k[None, :], mask=is_row[:, None] & is_k, other=0.0)
            down = tl.load(down_ptr + row * num_blocks + block, mask=is_row, other=0.0)
        part = tl.dot(weight, tl.trans(hi))
        part = tl.dot(weight, tl.trans(lo), part)
        acc += part * down[None, :]
    return acc


@triton.jit
def _prefetch(weight_ptr, channel, num_n, num_k, block_begin, num_blocks,
              BLOCK_K: tl.constexpr, PREFETCH: tl.constexpr):  # fmt: skip
    """Ask the L2 cache for a program's first blocks of weights; nothing waits for them."""
    weight_row = weight_ptr + tl.minimum(channel, num_n - 1).to(tl.int64) * num_k
    for index in tl.static_range(PREFETCH):
        # a row of a block is one line of 128 bytes
        address = weight_row + tl.minimum(block_begin + index, num_blocks - 1) * BLOCK_K
        tl.inline_asm_elementwise(
            "{ prefetch.global.L2 [$1]; mov.u32 $0, 0; }", "=r,l", [address.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def _is_last(counter_ptr, SPLITS: tl.constexpr):
    """Whether all other splits of this tile have stored their part; sets the counter back."""
    tl.debug_barrier()  # every thread's part is stored before the one that counts goes on
    is_last = tl.atomic_add(counter_ptr, 1, sem="acq_rel") == SPLITS - 1
    if is_last:
        tl.store(counter_ptr, 0)
    return is_last


@triton.jit(do_not_specialize=["num_rows", "blocks_per_split"])
def fp8_matmul_kernel(
    out_ptr,                        # [rows, N]
    x_ptr, lo_ptr, down_ptr,        # [rows, K]; None twice, or hi, lo and their factors
    weight_ptr, scale_ptr,          # [N, K] fp8, [N] fp32
    part_ptr, counter_ptr,          # [SPLITS, rows, N] fp32, [tiles] int32 zeros
    num_rows, num_n, num_k, blocks_per_split,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLITS: tl.constexpr,
    RESIDUAL: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one tile of the output, over one split of K."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_channel = row < num_rows, channel < num_n
    num_blocks = tl.cdiv(num_k, BLOCK_K)
    begin = tl.program_id(2) * blocks_per_split
    if PDL:
        gdc_launch_dependents()
        # weights do not change: they may come in while the kernel before is still at work
        _prefetch(weight_ptr, channel, num_n, num_k, begin, num_blocks, BLOCK_K, STAGES - 1)
        gdc_wait()
    acc = _multiply(
        x_ptr, lo_ptr, down_ptr, weight_ptr, row, is_row, channel, is_channel,
        num_k, num_blocks, begin, tl.minimum(begin + blocks_per_split, num_blocks),
        BLOCK_M, BLOCK_N, BLOCK_K, STAGES,
    )  # fmt: skip
    mask = is_channel[:, None] & is_row[None, :]
    dst = row[None, :] * num_n + channel[:, None]
    is_last = True
    if SPLITS > 1:
        size = num_rows * num_n
        tl.store(part_ptr + tl.program_id(2) * size + dst, acc, mask=mask)
        is_last = _is_last(
            counter_ptr + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), SPLITS
        )
    if is_last:
        if SPLITS > 1:
            acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
            for index in tl.static_range(SPLITS):
                acc += tl.load(
                    part_ptr + index * size + dst, mask=mask, other=0.0, cache_modifier=".cg"
                )
        acc *= tl.load(scale_ptr + channel, mask=is_channel, other=0.0)[:, None]
        if RESIDUAL:
            acc += tl.load(out_ptr + dst, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_ptr + dst, acc.to(out_ptr.dtype.element_ty), mask=mask)


def num_counters(num_n: int) -> int:
    """Tiles that an output of num_n channels and up to MAX_ROWS rows may have."""
    return max(triton.cdiv(t.rows, t.block_m) * triton.cdiv(num_n, t.block_n) for t in TILES)


@cache
def _num_sms(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _blocks_per_split(num_tiles: int, num_blocks: int, num_programs: int) -> int:
    """As many splits as make the tiles fill the device once."""
    splits = max(1, min(num_programs // num_tiles, num_blocks // MIN_BLOCKS))
    return triton.cdiv(num_blocks, splits)


def fp8_matmul(
    x: Tensor, weight: Fp8Weight, counters: Tensor, *, out: Tensor, is_residual: bool = False
) -> None:
    """out = x @ weight, or with `is_residual` out += x @ weight.

    Args:
        x: [rows, in] bfloat16 or float16, contiguous, at most MAX_ROWS rows.
        weight: [out, in] fp8 with its scales.
        counters: [num_counters(out)] int32 zeros; used by one product at a time, and zeros again
            after it.
        out: [rows, out] contiguous, of x's dtype or wider.
    """
    assert x.is_contiguous() and out.is_contiguous() and weight.data.is_contiguous()
    (rows, num_k), num_n = x.shape, out.shape[1]
    if rows == 0:
        return
    tile = next(tile for tile in TILES if rows <= tile.rows)
    pieces = (x, None, None) if tile.splits_x else split_rows(x)
    grid_m, grid_n = triton.cdiv(rows, tile.block_m), triton.cdiv(num_n, tile.block_n)
    num_blocks = triton.cdiv(num_k, BLOCK_K)
    per_split = _blocks_per_split(grid_m * grid_n, num_blocks, tile.per_sm * _num_sms(x.device))
    splits = triton.cdiv(num_blocks, per_split)
    parts = torch.empty(splits, rows, num_n, device=x.device) if splits > 1 else None
    fp8_matmul_kernel[(grid_m, grid_n, splits)](
        out, *pieces, weight.data, weight.scale, parts, counters,
        rows, num_n, num_k, per_split,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=BLOCK_K, SPLITS=splits,
        RESIDUAL=is_residual, STAGES=tile.stages, num_warps=tile.num_warps,
        **launch_options(x.device),
    )  # fmt: skip
