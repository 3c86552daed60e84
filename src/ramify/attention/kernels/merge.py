"""Merge the partial results of each row into its output (Triton body only).

Maths        lse = log sum_w exp(lse_w);  out = sum_w exp(lse_w - lse) * out_w    (natural log)
Grid         (Q, Hq / HEADS): one program per ordered row and HEADS query heads
Traffic      reads 4 * (D + 1) bytes a partial and head; bandwidth-bound, mostly from L2
Determinism  partials fold in item order, FAN_IN at a time: a row's bits do not depend on others
Source       FlashInfer, Ye et al. 2025 (attention state); reference:
             ../reference.py::merge_partials_ref
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit(do_not_specialize=["num_q_heads"])
def merge_kernel(
    out_ptr, lse_ptr,             # [Q, Hq, D] like q, [Q, Hq] fp32
    part_out_ptr, part_lse_ptr,   # [S, Hq, D], [S, Hq] fp32
    row_ptr, row_stride,          # [3, Q] int32: user's row, position, number of partials
    indptr_ptr, slot_ptr,         # [Q + 1], [S] int32: CSR of each ordered row's partials
    row_count_ptr,                # [1] int32: Q
    num_q_heads,
    HEADS: tl.constexpr, FAN_IN: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program merges one row; a row with one partial was finished by its unit."""
    row = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    has_head = head < num_q_heads
    offs_d = tl.arange(0, BLOCK_D)
    mask = has_head[:, None] & (offs_d < HEAD_DIM)[None, :]
    exists = row < tl.load(row_count_ptr)
    user_row = tl.load(row_ptr + row, mask=exists, other=0).to(tl.int64)
    begin = tl.load(indptr_ptr + row, mask=exists, other=0)
    end = tl.load(indptr_ptr + row + 1, mask=exists, other=1)
    if PDL:
        gdc_wait()
    if end - begin != 1:
        best = tl.full([HEADS], -float("inf"), tl.float32)
        total = tl.zeros([HEADS], tl.float32)
        acc = tl.zeros([HEADS, BLOCK_D], tl.float32)
        for first in range(begin, end, FAN_IN):
            # loads of one step do not wait for one another
            for step in tl.static_range(FAN_IN):
                is_part = first + step < end
                slot = tl.load(slot_ptr + first + step, mask=is_part, other=0).to(tl.int64)
                src = slot * num_q_heads + head
                lse = tl.load(part_lse_ptr + src, mask=has_head & is_part, other=-float("inf"))
                part = tl.load(
                    part_out_ptr + src[:, None] * HEAD_DIM + offs_d[None, :],
                    mask=mask & is_part, other=0.0,
                )  # fmt: skip
                new_best = tl.maximum(best, lse)
                shift = tl.where(new_best == -float("inf"), 0.0, new_best)
                keep, weight = tl.exp(best - shift), tl.exp(lse - shift)
                total = total * keep + weight
                acc = acc * keep[:, None] + part * weight[:, None]
                best = new_best
        some = total > 0.0
        safe = tl.where(some, total, 1.0)
        dst = user_row * num_q_heads + head
        tl.store(lse_ptr + dst, best + tl.log(safe), mask=has_head)
        tl.store(
            out_ptr + dst[:, None] * HEAD_DIM + offs_d[None, :],
            (acc / safe[:, None]).to(out_ptr.dtype.element_ty),
            mask=mask,
        )  # fmt: skip
