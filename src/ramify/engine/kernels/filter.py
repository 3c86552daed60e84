"""Top-k, top-p and min-p as one threshold per draw, without sorting (Triton body only).

Maths        a token stays when value > threshold, or value = threshold and its index <= cut.
             min-p: exp((value - best) / temperature) >= min_p. Top-k and top-p, in this order: the
             largest threshold whose tokens at or above it weigh a goal, each token 1 and the goal
             k, or each its probability among what is left and the goal top_p.
Grid         (N,): one program per draw; a draw without filters returns at once
Method       bisection between values that occur, over the whole row until WINDOW of them are left,
             then over those in registers. Tokens too far below the best to be drawn with any noise
             are left where they are.
Ties         equal values at the threshold all stay in top-k; in top-p the lowest indices do. The
             mass is summed in float32, so a token whose edge lies within 1e-6 of top_p may fall on
             the other side than on the CPU.
Traffic      the logits about ten times, from L2 for as many rows as it holds
Determinism  sums in a fixed order, no atomics
Source       top-p: Holtzman et al. 2020; min-p: Nguyen et al. 2024; selection without sorting as
             in FlashInfer (Ye et al. 2025); reference: ../sample.py::_filter
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramify.engine.kernels.edit import is_edited, load_values

INF = tl.constexpr(float("inf"))
LOWEST = tl.constexpr(-3.4028234663852886e38)  # of finite float32
REACH = tl.constexpr(21.0)  # noise lies in [-2.9, 17.4]: further below the best no token is drawn


@triton.jit
def _bounds(logits_ptr, copy_ptr, edited, vocab_size, BLOCK: tl.constexpr):
    """Largest value, smallest finite one, and how many are finite."""
    most, least = tl.full([BLOCK], -INF, tl.float32), tl.full([BLOCK], INF, tl.float32)
    count = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, vocab_size, BLOCK):
        token = begin + tl.arange(0, BLOCK)
        value = load_values(logits_ptr, copy_ptr, edited, token, vocab_size)
        most = tl.maximum(most, value)
        least = tl.minimum(least, tl.where(value >= LOWEST, value, INF))
        count += (value >= LOWEST).to(tl.int32)
    return tl.max(most, axis=0), tl.min(least, axis=0), tl.sum(count, axis=0)


@triton.jit
def _measure(
    logits_ptr, copy_ptr, edited, vocab_size, pivot, peak, inverse,
    MASS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of the values at or above a pivot: weight, count, the least; and the most below it."""
    least, below = tl.full([BLOCK], INF, tl.float32), tl.full([BLOCK], -INF, tl.float32)
    count, mass = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.float32)
    for begin in range(0, vocab_size, BLOCK):
        token = begin + tl.arange(0, BLOCK)
        value = load_values(logits_ptr, copy_ptr, edited, token, vocab_size)
        is_in = value >= pivot
        count += is_in.to(tl.int32)
        least = tl.minimum(least, tl.where(is_in, value, INF))
        below = tl.maximum(below, tl.where(is_in, -INF, value))
        if MASS:
            mass += tl.where(is_in, tl.exp((value - peak) * inverse), 0.0)
    total = tl.sum(count, axis=0)
    weight = tl.sum(mass, axis=0) if MASS else total.to(tl.float32)
    return weight, total, tl.min(least, axis=0), tl.max(below, axis=0)


@triton.jit
def _gather(
    logits_ptr, copy_ptr, edited, vocab_size, window_ptr, low, high,
    WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The values in [low, high], at most WINDOW of them, -inf behind them."""
    size = 0
    tl.debug_barrier()  # the row's last window has been read
    for begin in range(0, vocab_size, BLOCK):
        token = begin + tl.arange(0, BLOCK)
        value = load_values(logits_ptr, copy_ptr, edited, token, vocab_size)
        is_in = (value >= low) & (value <= high)
        place = size + tl.cumsum(is_in.to(tl.int32), axis=0) - 1
        tl.store(window_ptr + place, value, mask=is_in)
        size += tl.sum(is_in.to(tl.int32), axis=0)
    tl.debug_barrier()  # all threads' values are there
    entry = tl.arange(0, WINDOW)
    return tl.load(window_ptr + entry, mask=entry < size, other=-INF)


@triton.jit
def _between(low, high, horizon):
    """Where to cut next: above low, at most high, and no further down than the horizon."""
    middle = tl.maximum(low * 0.5 + high * 0.5, horizon)
    return tl.where((middle > low) & (middle <= high), middle, high)


@triton.jit
def _select(
    logits_ptr, copy_ptr, edited, vocab_size, window_ptr,
    low, num_low, peak, inverse, goal, horizon,
    MASS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The largest value such that all at or above it weigh the goal.

    Returns it, the weight above it, and how many values equal it. low: the least value to
    consider, with num_low at or above it; where even those weigh less, it is the result.
    """
    high, num_above, weight_above = peak, 0, 0.0
    while (low < high) & (high >= horizon) & (num_low - num_above > WINDOW):
        middle = _between(low, high, horizon)
        weight, count, least, below = _measure(
            logits_ptr, copy_ptr, edited, vocab_size, middle, peak, inverse, MASS, BLOCK
        )
        reaches = weight >= goal
        low = tl.where(reaches, least, low)
        num_low = tl.where(reaches, count, num_low)
        high = tl.where(reaches, high, below)
        num_above = tl.where(reaches, num_above, count)
        weight_above = tl.where(reaches, weight_above, weight)
    ties = num_low - num_above
    if (low < high) & (high >= horizon):
        value = _gather(
            logits_ptr, copy_ptr, edited, vocab_size, window_ptr, low, high, WINDOW, BLOCK
        )
        mass = tl.exp((value - peak) * inverse) if MASS else (value >= low).to(tl.float32)
        base = weight_above
        while (low < high) & (high >= horizon):
            middle = _between(low, high, horizon)
            is_in = value >= middle
            weight = base + tl.sum(tl.where(is_in, mass, 0.0), axis=0)
            reaches = weight >= goal
            low = tl.where(reaches, tl.min(tl.where(is_in, value, INF), axis=0), low)
            below = tl.max(tl.where(is_in, -INF, value), axis=0)
            high = tl.where(reaches, high, below)
            weight_above = tl.where(reaches, weight_above, weight)
        ties = tl.sum((value == low).to(tl.int32), axis=0)
    return low, weight_above, ties


@triton.jit
def _cut(logits_ptr, copy_ptr, edited, vocab_size, threshold, keep, BLOCK: tl.constexpr):
    """Index of the keep-th token, from 1, whose value is the threshold."""
    cut, seen = vocab_size, 0
    for begin in range(0, vocab_size, BLOCK):
        token = begin + tl.arange(0, BLOCK)
        value = load_values(logits_ptr, copy_ptr, edited, token, vocab_size)
        is_tie = value == threshold
        place = seen + tl.cumsum(is_tie.to(tl.int32), axis=0)
        cut = tl.minimum(cut, tl.min(tl.where(is_tie & (place == keep), token, vocab_size), axis=0))
        seen += tl.sum(is_tie.to(tl.int32), axis=0)
    return cut


@triton.jit
def filter_kernel(
    logits_ptr, logits_stride,                  # [rows, V], any float dtype
    copy_ptr, indptr_ptr,                       # [N, V] fp32, [N + 1] int32: edited draws
    row_ptr, temperature_ptr,                   # [N] int32, fp32
    top_k_ptr, top_p_ptr, min_p_ptr,            # [N] int32, fp32, fp32: off are 0, 1, 0
    window_ptr,                                 # [N, WINDOW] fp32: workspace
    threshold_ptr, cut_ptr,                     # [N] fp32, int32: results
    vocab_size,
    WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program finds the threshold of one draw."""
    draw = tl.program_id(0)
    row = tl.load(row_ptr + draw).to(tl.int64)
    top_k, top_p = tl.load(top_k_ptr + draw), tl.load(top_p_ptr + draw)
    min_p = tl.load(min_p_ptr + draw)
    threshold, cut = -INF + 0.0, vocab_size
    if (row >= 0) & ((top_k > 0) | (top_p < 1.0) | (min_p > 0.0)):
        logits_ptr += row * logits_stride
        copy_ptr += draw.to(tl.int64) * vocab_size
        window_ptr += draw * WINDOW
        edited = is_edited(indptr_ptr, draw)
        temperature = tl.load(temperature_ptr + draw)
        inverse = 1.0 / temperature
        peak, low, count = _bounds(logits_ptr, copy_ptr, edited, vocab_size, BLOCK)
        horizon = peak - REACH * temperature
        threshold = tl.where(count > 0, low, -INF)
        if (top_k > 0) & (top_k < count):
            # top-p divides by the mass of exactly the k tokens, however improbable
            reach = tl.where(top_p < 1.0, -INF, horizon)
            threshold, _, _ = _select(
                logits_ptr, copy_ptr, edited, vocab_size, window_ptr,
                low, count, peak, inverse, top_k.to(tl.float32), reach, False, WINDOW, BLOCK,
            )  # fmt: skip
        if min_p > 0.0:
            threshold = tl.maximum(threshold, peak + tl.log(min_p) * temperature)
        if (top_p < 1.0) & (count > 0):
            mass, count, low, _ = _measure(
                logits_ptr, copy_ptr, edited, vocab_size, threshold, peak, inverse, True, BLOCK
            )
            threshold, above, ties = _select(
                logits_ptr, copy_ptr, edited, vocab_size, window_ptr,
                low, count, peak, inverse, top_p * mass, horizon, True, WINDOW, BLOCK,
            )  # fmt: skip
            # equal tokens stay while the mass before them is under the limit
            keep = tl.ceil((top_p * mass - above) / tl.exp((threshold - peak) * inverse))
            if (keep < ties) & (threshold >= horizon):
                place = tl.maximum(keep, 1.0).to(tl.int32)
                cut = _cut(logits_ptr, copy_ptr, edited, vocab_size, threshold, place, BLOCK)
    tl.store(threshold_ptr + draw, threshold)
    tl.store(cut_ptr + draw, cut)
