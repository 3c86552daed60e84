"""Input factories: random forests reach the corners they promise, poison hits the right slots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.testing.inputs import make_inputs, seen_slots
from ramify.testing.trees import RandomForestSpec, TreeCase, named, random_forest


def test_random_forests_reach_the_corners() -> None:
    cases = [random_forest(seed).forest for seed in range(20)]
    assert any((forest.length == 0).any() for forest in cases)
    assert any((forest.length == 1).any() for forest in cases)
    assert any((forest.parent > np.arange(forest.num_nodes)).any() for forest in cases)
    assert any((np.diff(forest.run_indptr) > 1).any() for forest in cases)
    assert any((forest.query_len < forest.length[forest.query_node]).any() for forest in cases)
    assert all((forest.parent < 0).sum() == RandomForestSpec().num_roots for forest in cases)


def test_random_forests_are_seeded() -> None:
    first, second, other = (random_forest(seed).forest for seed in (4, 4, 5))
    assert np.array_equal(first.run_begin, second.run_begin)
    assert not np.array_equal(first.parent, other.parent)


def test_unknown_shape() -> None:
    with pytest.raises(InputError, match=r"tree shape: expected few_shot, .*got 'bush'"):
        named("bush")


def test_poison_is_everywhere_but_where_a_row_looks() -> None:
    forest = Forest.from_nodes(
        [-1, 0, 0], [2, 3, 1], None, [1], [1], runs=[[(4, 1), (0, 1)], [(6, 3)], [(2, 1)]]
    )
    case = TreeCase(forest=forest, num_slots=10)
    assert seen_slots(case).nonzero().flatten().tolist() == [0, 4, 6]
    x = make_inputs(case, strided=True)
    assert torch.equal(x.k.isfinite().all(dim=(1, 2)), seen_slots(case))
    assert not x.k.is_contiguous() and make_inputs(case).k.is_contiguous()
