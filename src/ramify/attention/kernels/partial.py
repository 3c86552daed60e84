"""Partial attention of a tile of rows over a list of KV pieces (Triton body only).

Maths        s = scale * q . k (soft-capped), o = softmax(s) . v, lse = log sum exp(s), natural log
Grid         (W * Hkv,): work unit w = pid // Hkv for KV head pid % Hkv, costly units first.
             Units of kinds 0 return at once, so a grid may have slack.
Tile         TILE = 16, 32, 64 or 128 packed rows x query heads per KV head (GQA), one launch each
KV           spans: consecutive slots, BLOCK_N at a time; tokens: short pieces gathered by an index
             list, many nodes in one tile, hidden from rows outside [lo, hi)
fp8          K and V widen to q's dtype in registers; their scales, one a KV head, meet the logits'
             scale and the finished output
Window       tokens before the window of the unit's earliest row are not loaded
Traffic      K and V of the unit's tokens once; q once; partials 4 * (D + 1) bytes a row and head.
             A row that no other unit touches is finished here and leaves no partial.
Determinism  a unit folds its tokens in a fixed order; no atomics
Source       DeFT, Yao et al. 2025 (grouping by KV, flattened blocks); Flash-Decoding, Dao et al.
             2023 (split KV); reference: ../reference.py::tree_attention_ref
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _exp2(x, FAST: tl.constexpr):
    """2 ** x; FAST lets results below 2 ** -126 be 0, which spares four instructions of five."""
    if FAST:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.exp2(x)


@triton.jit
def _fold(
    q, k, v, visible, acc, best, total, scale_log2, softcap,
    MASKED: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Fold BLOCK_N tokens into the running softmax; scores are in log2 units."""
    k, v = k.to(q.dtype), v.to(q.dtype)  # fp8 fits 16 bits without loss
    score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
    if SOFTCAP:
        # softcap * tanh(s / softcap) by exp2; both constants carry the factor log2(e)
        score = softcap * (1.0 - 2.0 / (_exp2(score * (2.885390081777927 / softcap), FAST) + 1.0))
    if MASKED:
        score = tl.where(visible, score, -float("inf"))
    new_best = tl.maximum(best, tl.max(score, axis=1))
    if MASKED:
        # a row that has seen nothing yet must not compute inf - inf
        shift = tl.where(new_best == -float("inf"), 0.0, new_best)
    else:
        shift = new_best
    keep = _exp2(best - shift, FAST)
    weight = _exp2(score - shift[:, None], FAST)
    total = total * keep + tl.sum(weight, axis=1)
    acc = acc * keep[:, None]
    acc = tl.dot(weight.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, new_best, total


@triton.jit(do_not_specialize=["num_kv_heads", "window"])
def partial_kernel(
    q_ptr, k_ptr, v_ptr,            # [Q, Hq, D]; [slots, Hkv, D] twice, last axis contiguous
    out_ptr, lse_ptr,               # [Q, Hq, D] like q, [Q, Hq] fp32
    part_out_ptr, part_lse_ptr,     # [S, Hq, D], [S, Hq] fp32
    work_ptr,                       # [W, 8] int32: row0, rows, pieces, tokens, first slot, kinds
    piece_ptr,                      # [P, 8] int32: slot, length, lo, hi, position, causal, -, -
    token_ptr, token_stride,        # [4, T] int32: slot, lo, hi, position
    row_ptr, row_stride,            # [3, Q] int32: user's row, position, number of partials
    k_scale_ptr, v_scale_ptr,       # [Hkv] fp32 twice, for fp8 K and V only
    q_row, q_head, k_slot, k_head, v_slot, v_head,  # strides in elements
    num_kv_heads, scale_log2, softcap, window,
    GROUP: tl.constexpr, TILE: tl.constexpr, BLOCK_N: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, FP8: tl.constexpr, PRECISION: tl.constexpr,
    FAST: tl.constexpr, STAGES: tl.constexpr, GATHER_STAGES: tl.constexpr,
    # kinds of a unit's rows: 1 finished here, 2 with a partial result, 3 both, 0 no work
    PDL: tl.constexpr,              # let the next launch start beside this one
    CHAINED: tl.constexpr,          # started beside the launch before, so end after it
):  # fmt: skip
    """One program: one work unit and KV head."""
    if PDL:
        gdc_launch_dependents()
    pid = tl.program_id(0)
    work = work_ptr + pid // num_kv_heads * 8
    head = pid % num_kv_heads
    if tl.load(work + 7) > 0:
        row0 = tl.load(work)
        num_rows = tl.load(work + 1)
        piece_begin = tl.load(work + 2)
        piece_end = tl.load(work + 3)
        token_begin = tl.load(work + 4)
        token_end = tl.load(work + 5)
        slot0 = tl.load(work + 6)
        num_q_heads = num_kv_heads * GROUP
        packed = tl.arange(0, TILE)
        offs_n = tl.arange(0, BLOCK_N)
        offs_d = tl.arange(0, BLOCK_D)
        mask_d = offs_d < HEAD_DIM
        live = packed < num_rows * GROUP
        row = row0 + packed // GROUP
        q_index = head * GROUP + packed % GROUP
        user_row = tl.load(row_ptr + row, mask=live, other=0).to(tl.int64)
        row_position = tl.load(row_ptr + row_stride + row, mask=live, other=-1)
        # K and V of short loads stay undefined beyond the mask, so both are masked and filled
        q_offs = user_row * q_row + q_index * q_head
        q_mask = live[:, None] & mask_d[None, :]
        q = tl.load(q_ptr + q_offs[:, None] + offs_d[None, :], mask=q_mask, other=0.0)
        k_base = k_ptr + head * k_head + offs_d[None, :]
        v_base = v_ptr + head * v_head + offs_d[None, :]
        if WINDOW:
            # no row of the unit sees a token before this position; rows at -1 see none at all
            oldest = tl.min(tl.where(row_position >= 0, row_position, 1 << 30)) - window + 1
        if FP8:
            # one KV head a program, so its scale goes through the logits' scale
            scale_log2 = scale_log2 * tl.load(k_scale_ptr + head)
        best = tl.full([TILE], -float("inf"), tl.float32)
        total = tl.zeros([TILE], tl.float32)
        acc = tl.zeros([TILE, BLOCK_D], tl.float32)

        for piece in range(piece_begin, piece_end):
            slot = tl.load(piece_ptr + piece * 8).to(tl.int64)
            length = tl.load(piece_ptr + piece * 8 + 1)
            lo = tl.load(piece_ptr + piece * 8 + 2)
            hi = tl.load(piece_ptr + piece * 8 + 3)
            position = tl.load(piece_ptr + piece * 8 + 4)
            causal = tl.load(piece_ptr + piece * 8 + 5)
            k_span = k_base + slot * k_slot
            v_span = v_base + slot * v_slot
            num_full = 0
            if TILE == 128 and not WINDOW:
                # narrow units wait for memory: one masked loop is less code to fetch
                sees_all = (lo <= row0) & (row0 + num_rows <= hi) & (causal == 0)
                num_full = tl.where(sees_all, length // BLOCK_N * BLOCK_N, 0)
                for begin in tl.range(0, num_full, BLOCK_N, num_stages=STAGES):
                    offs = (begin + offs_n)[:, None].to(tl.int64)
                    k = tl.load(k_span + offs * k_slot, mask=mask_d[None, :], other=0.0)
                    v = tl.load(v_span + offs * v_slot, mask=mask_d[None, :], other=0.0)
                    acc, best, total = _fold(
                        q, k, v, live[:, None], acc, best, total, scale_log2, softcap,
                        False, SOFTCAP, PRECISION, FAST,
                    )  # fmt: skip
            first = num_full
            if WINDOW:
                first = tl.maximum(oldest - position, 0)
            in_piece = live & (lo <= row) & (row < hi)
            for begin in tl.range(first, length, BLOCK_N, num_stages=STAGES):
                token = begin + offs_n
                offs = token[:, None].to(tl.int64)
                load = (token < length)[:, None] & mask_d[None, :]
                k = tl.load(k_span + offs * k_slot, mask=load, other=0.0)
                v = tl.load(v_span + offs * v_slot, mask=load, other=0.0)
                seen = (token < length)[None, :] & in_piece[:, None]
                seen = seen & ((position + token)[None, :] <= row_position[:, None])
                if WINDOW:
                    seen = seen & ((position + token)[None, :] > (row_position - window)[:, None])
                acc, best, total = _fold(
                    q, k, v, seen, acc, best, total, scale_log2, softcap,
                    True, SOFTCAP, PRECISION, FAST,
                )  # fmt: skip

        for begin in tl.range(token_begin, token_end, BLOCK_N, num_stages=GATHER_STAGES):
            token = begin + offs_n
            exists = token < token_end
            slot = tl.load(token_ptr + token, mask=exists, other=0).to(tl.int64)
            lo = tl.load(token_ptr + token_stride + token, mask=exists, other=0)
            hi = tl.load(token_ptr + 2 * token_stride + token, mask=exists, other=0)
            if WINDOW:
                position = tl.load(token_ptr + 3 * token_stride + token, mask=exists, other=0)
                exists = exists & (position >= oldest)
            load = exists[:, None] & mask_d[None, :]
            k = tl.load(k_base + slot[:, None] * k_slot, mask=load, other=0.0)
            v = tl.load(v_base + slot[:, None] * v_slot, mask=load, other=0.0)
            # a token past the end has hi = 0
            seen = (lo[None, :] <= row[:, None]) & (row[:, None] < hi[None, :]) & live[:, None]
            if WINDOW:
                seen = seen & (position[None, :] > (row_position - window)[:, None])
            acc, best, total = _fold(
                q, k, v, seen, acc, best, total, scale_log2, softcap,
                True, SOFTCAP, PRECISION, FAST,
            )  # fmt: skip

        some = total > 0.0
        acc = acc / tl.where(some, total, 1.0)[:, None]
        if FP8:
            acc = acc * tl.load(v_scale_ptr + head)
        # ln 2 turns log2 units into natural ones; a row that saw nothing gives 0 and -inf
        lse = tl.where(some, (best + tl.log2(tl.where(some, total, 1.0))) * 0.6931471805599453,
                       -float("inf"))  # fmt: skip
        # most units have rows of one kind only, and the branch spares the other kind's addresses
        kinds = tl.load(work + 7)
        alone = tl.load(row_ptr + 2 * row_stride + row, mask=live, other=0) == 1
        if kinds & 1:
            done = live & alone
            dst = user_row * num_q_heads + q_index
            tl.store(lse_ptr + dst, lse, mask=done)
            tl.store(
                out_ptr + dst[:, None] * HEAD_DIM + offs_d[None, :],
                acc.to(out_ptr.dtype.element_ty), mask=done[:, None] & mask_d[None, :],
            )  # fmt: skip
        if kinds & 2:
            part = live & (alone == 0)
            dst = (slot0 + row - row0).to(tl.int64) * num_q_heads + q_index
            tl.store(part_lse_ptr + dst, lse, mask=part)
            tl.store(
                part_out_ptr + dst[:, None] * HEAD_DIM + offs_d[None, :],
                acc, mask=part[:, None] & mask_d[None, :],
            )  # fmt: skip
    if CHAINED:
        gdc_wait()
