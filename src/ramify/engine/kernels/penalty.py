"""Penalties by counts of tokens that stay on the device (Triton body only).

Maths        value = rescale(logit) - minus, minus = frequency * count + presence of a token that
             was generated; rescale divides a logit above zero by the repetition penalty and
             multiplies others, of tokens of the path. To the bit what edit.py makes of ../edits.py.
Grid         penalise_kernel (N, parts), in place of edit.py's copy_kernel; count_kernel (N,) behind
             the draw
Counts       int16: 15 bits how often a token was generated, the sign whether the prompt has it
Rounding     products are rounded before sums, as on the host: no fused multiply-add
Traffic      2 bytes a token read beside the copy of the logits
Determinism  each count belongs to one draw
Source       repetition: CTRL, Keskar et al. 2019; reference: ../sample.py::_penalise
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramify.engine.kernels.edit import is_edited


@triton.jit
def penalise_kernel(
    logits_ptr, logits_stride,      # [rows, V], any float dtype; elements from row to row
    copy_ptr,                       # [N, V] fp32: result
    row_ptr, indptr_ptr,            # [N], [N + 1] int32
    count_ptr,                      # [N, V] int16
    factor_ptr, factor_stride,      # [3, N] fp32: repetition, frequency, presence
    vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program copies one part of the logits of one edited draw, and penalises it."""
    draw = tl.program_id(0)
    if is_edited(indptr_ptr, draw):
        row = tl.load(row_ptr + draw).to(tl.int64)
        token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        is_token = token < vocab_size
        target = draw.to(tl.int64) * vocab_size + token
        packed = tl.load(count_ptr + target, mask=is_token, other=0).to(tl.int32)
        value = tl.load(logits_ptr + row * logits_stride + token, mask=is_token, other=0.0)
        value = value.to(tl.float32)
        repetition = tl.load(factor_ptr + draw)
        scaled = tl.where(value > 0.0, tl.math.div_rn(value, repetition), value * repetition)
        value = tl.where(packed != 0, scaled, value)
        count = packed & 0x7FFF
        frequency = tl.load(factor_ptr + factor_stride + draw)
        minus = frequency * count.to(tl.float32) + tl.load(factor_ptr + 2 * factor_stride + draw)
        value -= tl.where(count > 0, minus, 0.0)
        tl.store(copy_ptr + target, value, mask=is_token)


@triton.jit
def count_kernel(
    row_ptr, tokens_ptr,            # [N] int32: -1 is no draw; [N] int64: what was drawn
    count_ptr,                      # [N, V] int16
    vocab_size,
):  # fmt: skip
    """One program counts one drawn token."""
    draw = tl.program_id(0)
    if tl.load(row_ptr + draw) >= 0:
        target = count_ptr + draw.to(tl.int64) * vocab_size + tl.load(tokens_ptr + draw)
        tl.store(target, tl.load(target) + 1)
