"""Edit logits of a draw, in a copy: penalties, bias, bans, masks (Triton body only).

Maths        value = rescale(logit) - minus + plus; see ../edits.py
Grid         copy_kernel (N, parts), mask_kernel (N, parts), edit_kernel (N,), one after the other;
             a draw without edits returns at once, and later kernels read its logits instead of a
             copy
Traffic      4 bytes a token written for each edited draw; the model's logits stay as they are
Determinism  a token is edited once at most, so the order of edits does not matter
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_edited(indptr_ptr, draw):
    """Whether the values of a draw are those of its copy."""
    return tl.load(indptr_ptr + draw) < tl.load(indptr_ptr + draw + 1)


@triton.jit
def load_values(logits_ptr, copy_ptr, edited, token, vocab_size):
    """Float32 values of tokens, from the draw's edited copy or the model; -inf past the end."""
    is_token = token < vocab_size
    if edited:
        value = tl.load(copy_ptr + token, mask=is_token, other=-float("inf"))
    else:
        value = tl.load(logits_ptr + token, mask=is_token, other=-float("inf")).to(tl.float32)
    return value


@triton.jit
def copy_kernel(
    logits_ptr, logits_stride,      # [rows, V], any float dtype; elements from row to row
    copy_ptr,                       # [N, V] fp32: result
    row_ptr, indptr_ptr,            # [N], [N + 1] int32
    vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program copies one part of the logits of one edited draw."""
    draw = tl.program_id(0)
    if is_edited(indptr_ptr, draw):
        row = tl.load(row_ptr + draw).to(tl.int64)
        token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        is_token = token < vocab_size
        logits = tl.load(logits_ptr + row * logits_stride + token, mask=is_token)
        target = copy_ptr + draw.to(tl.int64) * vocab_size + token
        tl.store(target, logits.to(tl.float32), mask=is_token)


@triton.jit
def mask_kernel(
    copy_ptr,                       # [N, V] fp32
    mask_row_ptr,                   # [N] int32: the draw's mask, -1 where it has none
    mask_ptr,                       # [M, W] int32: bit t % 32 of word t // 32 lets token t pass
    num_words,                      # W
    vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program excludes what a mask refuses in one part of the logits of one draw."""
    draw = tl.program_id(0)
    mask_row = tl.load(mask_row_ptr + draw).to(tl.int64)
    if mask_row >= 0:
        token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        is_token = token < vocab_size
        word = tl.load(mask_ptr + mask_row * num_words + token // 32, mask=is_token, other=0)
        is_refused = ((word >> (token % 32)) & 1) == 0
        target = copy_ptr + draw.to(tl.int64) * vocab_size + token
        tl.store(target, -float("inf"), mask=is_token & is_refused)


@triton.jit
def edit_kernel(
    copy_ptr,                                  # [N, V] fp32
    indptr_ptr, token_ptr,                     # [N + 1], [E] int32
    scale_ptr, minus_ptr, plus_ptr,            # [E] fp32 each
    vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program applies the edits of one draw."""
    draw = tl.program_id(0)
    row = copy_ptr + draw.to(tl.int64) * vocab_size
    end = tl.load(indptr_ptr + draw + 1)
    for begin in range(tl.load(indptr_ptr + draw), end, BLOCK):
        edit = begin + tl.arange(0, BLOCK)
        is_edit = edit < end
        token = tl.load(token_ptr + edit, mask=is_edit, other=0)
        scale = tl.load(scale_ptr + edit, mask=is_edit, other=1.0)
        value = tl.load(row + token, mask=is_edit, other=0.0)
        value = tl.where(value > 0.0, tl.math.div_rn(value, scale), value * scale)
        value -= tl.load(minus_ptr + edit, mask=is_edit, other=0.0)
        value += tl.load(plus_ptr + edit, mask=is_edit, other=0.0)
        tl.store(row + token, value, mask=is_edit)
