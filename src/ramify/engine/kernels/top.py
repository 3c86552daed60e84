"""The most probable tokens of a row, in order, and their log-probabilities (Triton body only).

Maths        the k largest logits, equal ones by their index; logprob = logit - log sum exp(logit),
             by the norm of draw.py
Grid         part_top_kernel (N, parts): the k largest of one part; fold_top_kernel (N,): those of
             all parts. A draw that wants none, or is none, returns at once.
Method       the largest is taken k times: k is small, and a part stays in registers
Order        logits as integers of the same order, with one below all for what is taken, so that
             -inf is a value like others
Traffic      the logits once, from L2
Determinism  ties go to the lowest index, so a row's tokens do not depend on others
"""

from __future__ import annotations

import triton
import triton.language as tl

TAKEN = tl.constexpr(-(2**31))


@triton.jit
def _flip(bits):
    """Bits of float32 to integers of their order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def part_top_kernel(
    logits_ptr, logits_stride,      # [rows, V], any float dtype; elements from row to row
    row_ptr, top_ptr,               # [N] int32: row of logits or -1; tokens wanted, at most MOST
    keys_ptr, places_ptr,           # [N, parts, MOST] int32: results, logits in order and tokens
    vocab_size,
    MOST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the most probable tokens of one part of the vocabulary for one draw."""
    draw, part = tl.program_id(0), tl.program_id(1)
    row = tl.load(row_ptr + draw).to(tl.int64)
    num_top = tl.load(top_ptr + draw)
    if (row >= 0) & (num_top > 0):
        offset = tl.arange(0, BLOCK)
        is_token = part * BLOCK + offset < vocab_size
        target = logits_ptr + row * logits_stride + part * BLOCK + offset
        logits = tl.load(target, mask=is_token, other=0.0).to(tl.float32)
        key = tl.where(is_token, _flip(logits.to(tl.int32, bitcast=True)), TAKEN)
        out = (draw * tl.num_programs(1) + part) * MOST
        for place in range(num_top):
            best, at = tl.max(key, axis=0, return_indices=True)
            tl.store(keys_ptr + out + place, best)
            tl.store(places_ptr + out + place, part * BLOCK + at)
            key = tl.where(offset == at, TAKEN, key)


@triton.jit
def fold_top_kernel(
    row_ptr, top_ptr,               # [N] int32
    norm_ptr,                       # [N] fp32: log sum exp of the row
    keys_ptr, places_ptr,           # [N, parts, MOST] int32
    out_ptr,                        # [N, 2, MOST] int32: tokens, and bits of log-probabilities
    parts,
    MOST: tl.constexpr, SIZE: tl.constexpr,  # SIZE: parts * MOST, rounded up to a power of two
):  # fmt: skip
    """One program folds the parts of one draw."""
    draw = tl.program_id(0)
    row, num_top = tl.load(row_ptr + draw), tl.load(top_ptr + draw)
    if (row >= 0) & (num_top > 0):
        norm = tl.load(norm_ptr + draw)
        entry = tl.arange(0, SIZE)
        is_there = (entry < parts * MOST) & (entry % MOST < num_top)
        first = draw * parts * MOST
        # parts lie in the order of their tokens, and equal ones of a part do
        key = tl.load(keys_ptr + first + entry, mask=is_there, other=TAKEN)
        out_ptr += draw * 2 * MOST
        for place in range(num_top):
            best, at = tl.max(key, axis=0, return_indices=True)
            logprob = _flip(best).to(tl.float32, bitcast=True) - norm
            tl.store(out_ptr + place, tl.load(places_ptr + first + at))
            tl.store(out_ptr + MOST + place, logprob.to(tl.int32, bitcast=True))
            key = tl.where(entry == at, TAKEN, key)
