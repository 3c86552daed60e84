"""From the fused projection of a step to rotated queries, and keys and values in their slots.

Maths        y = (x . W) / rms(x) + bias, W with the norm's weight folded in: RMSNorm(x) . W + bias.
             q and k: y / rms(y) * weight per head where the family has it, then pair (i, i + D/2)
             turns by the angle of the row's position. All in float32, rounded once.
Grid         (rows, parts): a program takes BLOCKS blocks of BLOCK_H heads of one row
Traffic      reads the projection and x once (x once a part, from L2), writes q, k, v
fp8          K and V are stored as float8_e4m3fn, divided by their head's scale, saturating
Source       RoFormer, Su et al. 2021; RMSNorm, Zhang and Sennrich 2019; reference:
             ../layers.py::DecoderLayer.attention
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ramify.models.kernels.rms import block_x, inverse_rms, launch_options

# up to this many rows a row's heads are spread over programs, which all read x
FEW_ROWS = 64
FP8_MAX = tl.constexpr(448.0)


@triton.jit
def _load_halves(ptr, head, offs, mask, HEAD_DIM: tl.constexpr):
    """Both halves of some heads in float32, zeros where masked: [BLOCK_H, BLOCK_HALF] twice."""
    src = ptr + head[:, None] * HEAD_DIM + offs[None, :]
    first = tl.load(src, mask=mask, other=0.0).to(tl.float32)
    return first, tl.load(src + HEAD_DIM // 2, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_pool(pool_ptr, slot_stride, head_stride, scale_ptr, scale_stride,
                slot, head, offs, mask, is_kind, first, second, HALF: tl.constexpr):  # fmt: skip
    """Both halves of some heads' K or V into a slot; the scale is there for an fp8 pool."""
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + head * scale_stride, mask=is_kind, other=1.0)
        first = tl.clamp(first / scale[:, None], -FP8_MAX, FP8_MAX, tl.PropagateNan.ALL)
        second = tl.clamp(second / scale[:, None], -FP8_MAX, FP8_MAX, tl.PropagateNan.ALL)
    dst = pool_ptr + slot * slot_stride + head[:, None] * head_stride + offs[None, :]
    mask = mask & is_kind[:, None]
    tl.store(dst, first.to(pool_ptr.dtype.element_ty), mask=mask)
    tl.store(dst + HALF, second.to(pool_ptr.dtype.element_ty), mask=mask)


@triton.jit
def rope_store_kernel(
    q_ptr,                              # [rows, Hq, D]
    k_ptr, k_slot, k_head, k_scale_ptr, k_scale_head,  # [num_slots, Hkv, D], strides; [Hkv] fp32
    v_ptr, v_slot, v_head, v_scale_ptr, v_scale_head,
    qkv_ptr, x_ptr,                     # [rows, (Hq + 2 * Hkv) * D], [rows, HIDDEN]
    bias_ptr, norm_ptr,                 # [(Hq + 2 * Hkv) * D], [Hq + Hkv, D], or None
    table_ptr,                          # [num_positions, D]: cosines, then sines
    position_ptr, slot_ptr,             # [rows] int64 twice
    eps,
    HIDDEN: tl.constexpr, NUM_Q_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_HALF: tl.constexpr, BLOCK_H: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCK_X: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: some heads of one row."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    num_qk_heads: tl.constexpr = NUM_Q_HEADS + NUM_KV_HEADS
    num_heads: tl.constexpr = num_qk_heads + NUM_KV_HEADS
    half: tl.constexpr = HEAD_DIM // 2
    offs = tl.arange(0, BLOCK_HALF)
    mask_d = offs < half
    table = table_ptr + tl.load(position_ptr + row) * HEAD_DIM + offs
    cos = tl.load(table, mask=mask_d, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(table + half, mask=mask_d, other=0.0).to(tl.float32)[None, :]
    slot = tl.load(slot_ptr + row)
    head = tl.program_id(1) * (BLOCKS * BLOCK_H) + tl.arange(0, BLOCK_H)
    mask = (head < num_heads)[:, None] & mask_d[None, :]
    qkv = qkv_ptr + row * (num_heads * HEAD_DIM)
    # loads go out before they are waited for: these before the sum over x, others a block ahead
    first, second = _load_halves(qkv, head, offs, mask, HEAD_DIM)
    scale = inverse_rms(x_ptr + row * HIDDEN, eps, HIDDEN, BLOCK_X)
    for _ in range(BLOCKS):
        next_mask = (head + BLOCK_H < num_heads)[:, None] & mask_d[None, :]
        next_first, next_second = _load_halves(qkv, head + BLOCK_H, offs, next_mask, HEAD_DIM)
        first *= scale
        second *= scale
        if bias_ptr is not None:
            bias_first, bias_second = _load_halves(bias_ptr, head, offs, mask, HEAD_DIM)
            first += bias_first
            second += bias_second
        is_v = (head >= num_qk_heads) & (head < num_heads)
        _store_pool(v_ptr, v_slot, v_head, v_scale_ptr, v_scale_head,
                    slot, head - num_qk_heads, offs, mask, is_v, first, second, half)  # fmt: skip
        if norm_ptr is not None:
            square = tl.sum(first * first + second * second, axis=1) / HEAD_DIM
            normed = tl.rsqrt(square + eps)[:, None]
            mask_qk = mask & (head < num_qk_heads)[:, None]
            weight_first, weight_second = _load_halves(norm_ptr, head, offs, mask_qk, HEAD_DIM)
            first *= normed * weight_first
            second *= normed * weight_second
        turned = first * cos - second * sin
        second = second * cos + first * sin
        is_k = (head >= NUM_Q_HEADS) & (head < num_qk_heads)
        _store_pool(k_ptr, k_slot, k_head, k_scale_ptr, k_scale_head,
                    slot, head - NUM_Q_HEADS, offs, mask, is_k, turned, second, half)  # fmt: skip
        dst = q_ptr + row * (NUM_Q_HEADS * HEAD_DIM) + head[:, None] * HEAD_DIM + offs[None, :]
        mask_q = mask & (head < NUM_Q_HEADS)[:, None]
        tl.store(dst, turned.to(q_ptr.dtype.element_ty), mask=mask_q)
        tl.store(dst + half, second.to(q_ptr.dtype.element_ty), mask=mask_q)
        first, second, mask, head = next_first, next_second, next_mask, head + BLOCK_H


def rope_store(
    qkv: Tensor,
    x: Tensor,
    positions: Tensor,
    slots: Tensor,
    *,
    q: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    rotary: Tensor,
    eps: float,
    bias: Tensor | None = None,
    qk_norm: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> None:
    """Scale, shift and rotate one layer's projections; write q, and K and V into their slots.

    Args:
        qkv: [rows, (Hq + 2 Hkv) D], x @ W with the norm's weight folded into W.
        x: [rows, hidden], whose root mean square divides qkv; like qkv contiguous.
        positions: [rows] int64. slots: [rows] int64, all different but for one that nobody reads.
        q: [rows, Hq, D] contiguous, written.
        k_pool, v_pool: [num_slots, Hkv, D], last axis contiguous, written at `slots`.
        rotary: [num_positions, D] (see rope.py::rotary_table).
        bias: [(Hq + 2 Hkv) D]. qk_norm: [Hq + Hkv, D], weights of each head's own norm.
        k_scale, v_scale: [Hkv] float32, for float8_e4m3fn pools: what is stored is k / k_scale.
    """
    assert qkv.is_contiguous() and x.is_contiguous() and q.is_contiguous()
    assert k_pool.stride(-1) == v_pool.stride(-1) == 1, "the pools' last axis is contiguous"
    rows, num_q_heads, head_dim = q.shape
    num_kv_heads = k_pool.shape[1]
    num_heads = num_q_heads + 2 * num_kv_heads
    few = rows <= FEW_ROWS
    block_h = min(4 if few else 16, triton.next_power_of_2(num_heads))
    num_blocks = triton.cdiv(num_heads, block_h)
    rope_store_kernel[(rows, num_blocks if few else 1)](
        q,
        k_pool, *k_pool.stride()[:2], k_scale, 0 if k_scale is None else k_scale.stride(0),
        v_pool, *v_pool.stride()[:2], v_scale, 0 if v_scale is None else v_scale.stride(0),
        qkv, x, bias, qk_norm, rotary, positions, slots, eps,
        HIDDEN=x.shape[1], NUM_Q_HEADS=num_q_heads, NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim, BLOCK_HALF=triton.next_power_of_2(head_dim // 2), BLOCK_H=block_h,
        BLOCKS=1 if few else num_blocks, BLOCK_X=block_x(x.shape[1]),
        num_warps=4, **launch_options(x.device),
    )  # fmt: skip
