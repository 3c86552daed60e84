"""Intervals against published values, and against the share of times that they should cover."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.zoo.intervals import paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (185, 200, 0.880, 0.954),
    ],
)
def test_wilson_against_published_values(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-4)


def test_pairs_are_kept_together():
    rng = np.random.default_rng(0)
    other = rng.random(300) < 0.8
    mean, low, high = paired_difference(other, other)
    assert mean == low == high == 0.0
    # better on 30 problems and never worse: the normal interval of a share of 0.1
    own = other.copy()
    own[np.flatnonzero(~other)[:30]] = True
    mean, low, high = paired_difference(own, other)
    spread = 1.96 * np.sqrt(0.1 * 0.9 / 300)
    assert mean == pytest.approx(0.1)
    assert (low, high) == pytest.approx((0.1 - spread, 0.1 + spread), abs=6e-3)
    assert paired_difference(other, own)[0] == pytest.approx(-0.1)
