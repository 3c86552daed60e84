"""Intervals of few repeats, against the quantiles of a table and drawn samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ramify.bench.interval import mean_interval


def test_known_interval():
    # mean 3, standard deviation sqrt(2.5), t of 4 degrees of freedom 2.776
    mean, low, high = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3 and high - mean == pytest.approx(mean - low)
    assert high == pytest.approx(3 + 2.776 * math.sqrt(2.5 / 5), abs=5e-3)
    assert mean_interval([2.0]) == (2.0, -math.inf, math.inf)


@pytest.mark.parametrize("count", [2, 5, 12, 40])
def test_it_covers_the_mean_as_often_as_it_says(count):
    rng = np.random.default_rng(count)
    ends = [mean_interval(rng.normal(size=count).tolist()) for _ in range(2000)]
    covered = np.mean([low <= 0 <= high for _, low, high in ends])
    assert 0.935 <= covered <= 0.975
