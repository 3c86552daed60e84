"""Draw a token from each row: Gumbel-max over the vocabulary, and log-sum-exp (Triton body only).

Maths        token = argmax_v float32(value_v / temperature) + noise_v over the tokens that the
             filters keep, lowest index among equals; value is the logit or its edited copy;
             logprob = logit_token - log sum_v exp(logit_v), the logits being the model's own
Grid         draw_kernel (N, parts): one part of BLOCK tokens of one draw; fold_kernel (N,);
             rank_kernel (N,). A draw whose row is negative is no draw and returns at once.
Exactness    rough float32 scores find the tokens within a margin of the part's best, nearly always
             one; those are scored again as the CPU scores them, noise in float64
Traffic      the logits once, and from L2 once more for ranks
Determinism  parts fold in a fixed order, no atomics; BLOCK is the same for every batch, so a row's
             bits do not depend on others
Source       Gumbel-max, Maddison et al. 2014; reference: ../sample.py::sample
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramify.engine.kernels.edit import is_edited, load_values
from ramify.engine.kernels.noise import exact_gumbel, rough_gumbel, stream_at, uniform_bits

MINUS_INF = tl.constexpr(-float("inf"))


@triton.jit
def _store_mass(max_ptr, sum_ptr, logits):
    """The part's maximum and sum of exp(logit - maximum); a part of -inf alone has sum 0."""
    peak = tl.max(logits, axis=0)
    shift = tl.where(peak == MINUS_INF, 0.0, peak)
    tl.store(max_ptr, peak)
    tl.store(sum_ptr, tl.sum(tl.exp(logits - shift), axis=0))


@triton.jit
def _best_of_part(
    logits_ptr, copy_ptr, edited, vocab_size, score, token, first, start, temperature, is_greedy,
    FAST: tl.constexpr,
):  # fmt: skip
    """Best score of a part's tokens and the lowest index that has it; some score is above -inf."""
    if is_greedy == 0:
        score += rough_gumbel(uniform_bits(start, token), FAST)
    rest = tl.max(score, axis=0)
    # a generous bound of the error of rough scores; greedy scores have none
    bar = tl.where(is_greedy, float("inf"), rest - (1e-3 + 1e-5 * tl.abs(rest)))
    best, best_token = MINUS_INF + 0.0, first
    is_open = True
    while is_open:
        at = first + tl.argmax(score, axis=0)
        exact = load_values(logits_ptr, copy_ptr, edited, at, vocab_size)
        exact = tl.math.div_rn(exact, temperature)
        exact += tl.where(is_greedy, 0.0, exact_gumbel(uniform_bits(start, at)))
        is_better = (exact > best) | ((exact == best) & (at < best_token))
        best = tl.where(is_better, exact, best)
        best_token = tl.where(is_better, at, best_token)
        score = tl.where(token == at, MINUS_INF, score)
        rest = tl.max(score, axis=0)
        is_open = (rest >= bar) & (rest > MINUS_INF)
    return best, best_token


@triton.jit
def draw_kernel(
    logits_ptr, logits_stride,              # [rows, V], any float dtype; elements from row to row
    copy_ptr, indptr_ptr,                   # [N, V] fp32, [N + 1] int32: edited draws
    threshold_ptr, cut_ptr,                 # [N] fp32, int32: which tokens stay, see filter.py
    row_ptr, temperature_ptr,               # [N] int32, fp32: row of logits or -1; 0 is greedy
    stream_ptr, position_ptr,               # [N] int64 twice
    best_ptr, token_ptr,                    # [N, parts] fp32, int32: best score and its token
    max_ptr, sum_ptr,                       # [N, parts] fp32 twice: of the model's own logits
    vocab_size,
    BLOCK: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """One program: one part of the vocabulary for one draw."""
    draw, part = tl.program_id(0), tl.program_id(1)
    row = tl.load(row_ptr + draw).to(tl.int64)
    if row >= 0:
        edited = is_edited(indptr_ptr, draw)
        logits_ptr += row * logits_stride
        copy_ptr += draw.to(tl.int64) * vocab_size
        out = draw * tl.num_programs(1) + part
        first = part * BLOCK
        token = first + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + token, mask=token < vocab_size, other=MINUS_INF)
        logits = logits.to(tl.float32)
        _store_mass(max_ptr + out, sum_ptr + out, logits)

        value = logits
        if edited:
            value = load_values(logits_ptr, copy_ptr, edited, token, vocab_size)
        temperature = tl.load(temperature_ptr + draw)
        is_greedy = temperature == 0.0
        temperature = tl.where(is_greedy, 1.0, temperature)
        threshold = tl.load(threshold_ptr + draw)
        is_edge = (value == threshold) & (token <= tl.load(cut_ptr + draw))
        score = tl.where((value > threshold) | is_edge, value * (1.0 / temperature), MINUS_INF)
        best, best_token = MINUS_INF + 0.0, first
        # filters leave most parts empty
        if tl.max(score, axis=0) > MINUS_INF:
            start = stream_at(tl.load(stream_ptr + draw), tl.load(position_ptr + draw))
            best, best_token = _best_of_part(
                logits_ptr, copy_ptr, edited, vocab_size, score, token, first, start,
                temperature, is_greedy, FAST,
            )  # fmt: skip
        tl.store(best_ptr + out, best)
        tl.store(token_ptr + out, best_token)


@triton.jit
def fold_kernel(
    logits_ptr, logits_stride,              # [rows, V], any float dtype
    row_ptr,                                # [N] int32
    best_ptr, token_ptr, max_ptr, sum_ptr,  # [N, parts] fp32, int32, fp32, fp32
    tokens_ptr, logprobs_ptr, norm_ptr,     # [N] int64, fp32, fp32: results
    parts,
    PARTS: tl.constexpr,                    # parts, rounded up to a power of two
):  # fmt: skip
    """One program folds the parts of one draw in order."""
    draw = tl.program_id(0)
    row = tl.load(row_ptr + draw).to(tl.int64)
    if row >= 0:
        part = tl.arange(0, PARTS)
        is_part = part < parts
        at = draw * parts + part
        best = tl.load(best_ptr + at, mask=is_part, other=MINUS_INF)
        # parts lie in the order of their tokens: the first of equals has the lowest index
        winner = tl.argmax(best, axis=0)
        token = tl.load(token_ptr + draw * parts + winner).to(tl.int64)
        peaks = tl.load(max_ptr + at, mask=is_part, other=MINUS_INF)
        sums = tl.load(sum_ptr + at, mask=is_part, other=0.0)
        peak = tl.max(peaks, axis=0)
        shift = tl.where(peak == MINUS_INF, 0.0, peak)
        total = tl.sum(sums * tl.exp(peaks - shift), axis=0)
        norm = shift + tl.log(tl.where(total > 0.0, total, 1.0))
        chosen = tl.load(logits_ptr + row * logits_stride + token).to(tl.float32)
        tl.store(tokens_ptr + draw, token)
        tl.store(logprobs_ptr + draw, chosen - norm)
        tl.store(norm_ptr + draw, norm)


@triton.jit
def rank_kernel(
    logits_ptr, logits_stride,              # [rows, V], any float dtype
    row_ptr, tokens_ptr,                    # [N] int32, int64
    ranks_ptr,                              # [N] int32: results, from 1
    vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program counts the logits above that of one drawn token."""
    draw = tl.program_id(0)
    row = tl.load(row_ptr + draw).to(tl.int64)
    if row >= 0:
        logits_ptr += row * logits_stride
        chosen = tl.load(logits_ptr + tl.load(tokens_ptr + draw)).to(tl.float32)
        above = tl.zeros([BLOCK], tl.int32)
        for begin in range(0, vocab_size, BLOCK):
            token = begin + tl.arange(0, BLOCK)
            logits = tl.load(logits_ptr + token, mask=token < vocab_size, other=MINUS_INF)
            above += (logits.to(tl.float32) > chosen).to(tl.int32)
        tl.store(ranks_ptr + draw, tl.sum(above, axis=0) + 1)
