"""Sampled steps: evenly placed, and standing for exactly what the workload has."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.bench.deft.sample import sampled_steps, step_weights
from ramify.bench.deft.workloads import few_shot, reasoning


@pytest.fixture
def uneven(folder):
    return reasoning(folder / "smallToT.json")


def test_steps_are_the_middles_of_equal_spans(uneven):
    assert sampled_steps(uneven, 5) == [1, 3, 5, 7, 9]
    assert sampled_steps(uneven, 99) == list(range(10))
    even = few_shot(2, prompt=3, generated=401)
    assert sampled_steps(even, 99) == [25 + 50 * point for point in range(8)]


def test_weights_stand_for_the_whole(uneven):
    """Five of ten steps of two unlike trees: rows and tokens of all ten, to rounding."""
    steps = sampled_steps(uneven, 5)
    weights = step_weights(uneven, steps)
    forests = [state.forest() for state in uneven.states()]
    for of in ("num_rows", "unique_tokens", "path_tokens"):
        whole = [getattr(forest, of) for forest in forests]
        estimate = np.dot(weights, [whole[step] for step in steps])
        assert estimate == pytest.approx(sum(whole))
    assert 2 * sum(whole[step] for step in steps) != sum(whole), "equal weights would do"
    assert sum(weights) == pytest.approx(10)


def test_every_step_stands_for_itself(uneven):
    assert step_weights(uneven, range(10)) == pytest.approx([1.0] * 10)


def test_even_growth_keeps_equal_weights():
    even = few_shot(2, prompt=3, generated=17)
    assert step_weights(even, [1, 5, 10, 14]) == pytest.approx([4.0] * 4)
