"""The move table of the number puzzle: every way to combine two of k sorted numbers.

A state is its numbers in ascending order. A move is `pair * 4 + op`: take positions i < j of the
pair, so that a = numbers[j] >= b = numbers[i], and replace both by a + b, a - b, a * b or a / b.
A result must be a whole number from 0 to MAX_VALUE. 4 numbers have 24 moves, 3 have 12, 2 have 4.
Everything is vectorised over problems: the whole puzzle space is enumerated in seconds.
"""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

OPS = "+-*/"
MAX_NUMBER = 20
MAX_VALUE = 999
MIN_TARGET, MAX_TARGET = 10, 99

PAIRS = {k: np.array(list(combinations(range(k), 2)), dtype=np.int64) for k in (2, 3, 4)}


def num_moves(k: int) -> int:
    """Moves from a state of k numbers, legal or not."""
    return 4 * len(PAIRS[k])


def all_multisets() -> Ints:
    """Every start state, [8855, 4], each row ascending."""
    rows = list(combinations_with_replacement(range(1, MAX_NUMBER + 1), 4))
    return np.array(rows, dtype=np.int64)


def combine(a: Ints, b: Ints, op: Ints) -> Ints:
    """a op b elementwise for a >= b; -1 where the result breaks a rule or an operand is -1."""
    safe_b = np.maximum(b, 1)
    divides = (b > 0) & (a % safe_b == 0)
    result = np.select([op == 0, op == 1, op == 2], [a + b, a - b, a * b], a // safe_b)
    legal = (a >= 0) & (b >= 0) & (result <= MAX_VALUE) & ((op != 3) | divides)
    return np.asarray(np.where(legal, result, -1))


def apply_moves(numbers: Ints, moves: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Play one move on each state.

    Args:
        numbers: [N, k] ascending. moves: [N].
    Returns:
        a, b, result, each [N], and the state left, [N, k - 1] ascending (all -1 where illegal).
    """
    n, k = numbers.shape
    rows = np.arange(n)
    first, second = PAIRS[k][moves // 4].T
    a, b = numbers[rows, second], numbers[rows, first]
    result = combine(a, b, moves % 4)
    keep = np.ones((n, k), dtype=bool)
    keep[rows, first] = keep[rows, second] = False
    left = np.concatenate([numbers[keep].reshape(n, k - 2), result[:, None]], axis=1)
    left = np.where((result >= 0)[:, None], np.sort(left, axis=1), -1)
    return a, b, result, left


def expand(numbers: Ints) -> Ints:
    """All states one move away: [N, k] -> [N, moves, k - 1]; illegal moves give -1."""
    n, k = numbers.shape
    count = num_moves(k)
    moves = np.tile(np.arange(count), n)
    return apply_moves(np.repeat(numbers, count, axis=0), moves)[3].reshape(n, count, k - 1)


def final_values(numbers: Ints) -> NDArray[np.int16]:
    """Play every sequence of moves: [N, 4] -> last number [N, 24, 12, 4], -1 where illegal."""
    n = len(numbers)
    three = expand(numbers).reshape(n * 24, 3)
    two = expand(three).reshape(n * 24 * 12, 2)
    return expand(two).reshape(n, 24, 12, 4).astype(np.int16)


def problem_key(numbers: Ints, target: Ints) -> NDArray[np.uint64]:
    """The identity of a puzzle, for the held-out split: [N, 4] ascending and [N] -> [N]."""
    key = target.astype(np.uint64)
    for column in range(4):
        key = key * np.uint64(32) + numbers[:, column].astype(np.uint64)
    return np.asarray(key)
