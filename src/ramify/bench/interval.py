"""Means of few repeats with their 95 % intervals, by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

# two-sided 95 % quantiles of 1, 2, ... degrees of freedom; beyond them the normal's, widened
_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14)
_MORE = 2.14


def mean_interval(samples: Sequence[float]) -> tuple[float, float, float]:
    """Mean, low and high end; with one sample the ends are infinite, as nothing is known."""
    mean = fmean(samples)
    if len(samples) < 2:
        return mean, -math.inf, math.inf
    free = len(samples) - 2
    quantile = _QUANTILES[free] if free < len(_QUANTILES) else _MORE
    half = quantile * stdev(samples) / math.sqrt(len(samples))
    return mean, mean - half, mean + half
