"""95 % intervals: of the share that a method solves, and of how far it is ahead of another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson 1927)."""
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return (centre - spread) / scale, (centre + spread) / scale


def paired_difference(
    own: Sequence[bool], other: Sequence[bool], *, seed: int = 0
) -> tuple[float, float, float]:
    """How much larger the share of `own` is, and its interval by resampling problems.

    The percentile bootstrap (Efron 1979): a problem is drawn with both of its outcomes.
    """
    gains = np.asarray(own, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.percentile(gains[drawn].mean(axis=1), [2.5, 97.5])
    return float(gains.mean()), float(low), float(high)
