"""Counter-based randomness: the noise of a token is a pure function of (seed, position, token).

A branch's seed follows from its root's seed and its path, so the same tree draws the same noise
cold, warm, batched or alone, and every backend can recompute it with integer arithmetic only.
The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MIX_A = 0xBF58476D1CE4E5B9
MIX_B = 0x94D049BB133111EB


def mix64(value: int) -> int:
    """Scramble one 64-bit integer; a bijection, so distinct inputs never collide."""
    value = (value + GOLDEN) & MASK
    value = ((value ^ (value >> 30)) * MIX_A) & MASK
    value = ((value ^ (value >> 27)) * MIX_B) & MASK
    return value ^ (value >> 31)


def child_seed(seed: int, index: int) -> int:
    """Seed of the index-th branch grown from a node.

    Branch 0 keeps its parent's seed: a branch run alone with its own seed and n = 1 draws the same
    noise as it drew inside its tree.
    """
    return seed if index == 0 else mix64(seed ^ mix64(index)) >> 1


def given_seed(seed: int, tokens: Sequence[int]) -> int:
    """Seed of a node made of given tokens: a function of its parent's seed and the tokens."""
    for token in tokens:
        seed = mix64(seed ^ mix64(token)) >> 1
    return seed


def _finish(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, uint64."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(MIX_A)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(MIX_B)
    bits ^= bits >> np.uint64(31)
    return bits


def gumbel_noise(seeds: Sequence[int], positions: Sequence[int], vocab_size: int) -> np.ndarray:
    """Gumbel(0, 1) noise [len(seeds), vocab_size] float32, a row per (seed, absolute position)."""
    streams = [mix64(mix64(seed) ^ at) for seed, at in zip(seeds, positions, strict=True)]
    tokens = np.arange(1, vocab_size + 1, dtype=np.uint64)
    # uint64 arithmetic wraps on purpose: it is the mixer's modulus
    bits = _finish(np.array(streams, dtype=np.uint64)[:, None] + tokens * np.uint64(GOLDEN))
    # 24 bits fill a float32 mantissa; the half keeps the uniform strictly inside (0, 1)
    uniform = ((bits >> np.uint64(40)).astype(np.float64) + 0.5) * 2.0**-24
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise.astype(np.float32)
