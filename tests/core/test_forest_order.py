"""The compiled loops behind a Forest: cycles, sorting, array layouts, and indices out of range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.forest import Forest
from ramify.core.forest_order import (
    ROW,
    SEES,
    ForestOrder,
    first_rows,
    has_cycle,
    order_forest,
    row_shares,
)
from ramify.testing.trees import random_forest


def leads_to_a_root(parent: list[int], node: int) -> bool:
    for _ in range(len(parent) + 1):
        if node < 0:
            return True
        node = parent[node]
    return False


@settings(max_examples=200, deadline=None)
@given(parent=st.integers(0, 8).flatmap(lambda n: st.lists(st.integers(-1, n), max_size=n + 1)))
def test_has_cycle_by_following_every_node(parent: list[int]) -> None:
    parent = [min(above, len(parent) - 1) for above in parent]
    expected = not all(leads_to_a_root(parent, node) for node in range(len(parent)))
    assert has_cycle(np.array(parent, dtype=np.int32)) == expected


@pytest.mark.parametrize("num_rows", [1, 2, 3, 64, 65, 1000, 4097])
@pytest.mark.parametrize("order", ["rising", "falling", "shuffled", "equal"])
def test_rows_of_one_node_are_sorted_stably(num_rows: int, order: str) -> None:
    seen = np.arange(num_rows) // 3
    if order == "falling":
        seen = seen[::-1].copy()
    elif order == "shuffled":
        seen = np.random.default_rng(num_rows).permutation(seen)
    elif order == "equal":
        seen[:] = 1
    found = ordered([-1], [num_rows], np.zeros(num_rows, int), seen)
    np.testing.assert_array_equal(found.rows[ROW], np.argsort(seen, kind="stable"))
    np.testing.assert_array_equal(found.rows[SEES], np.sort(seen))


def ordered(parent: list[int], length: list[int], query_node: object, seen: object) -> ForestOrder:
    nodes, lens = np.array(query_node, dtype=np.int64), np.array(seen, dtype=np.int64)
    return order_forest(
        np.array(parent, dtype=np.int32), np.array(length, dtype=np.int64), nodes, lens
    )


def test_layout_and_width_of_the_arrays_do_not_matter() -> None:
    forest = random_forest(3).forest
    arrays = [forest.parent, forest.length, forest.query_node, forest.query_len]
    expected = order_forest(*arrays)
    strided = [np.repeat(array, 2)[::2] for array in arrays]
    fixed = [array.copy() for array in arrays]
    for array in fixed:
        array.flags.writeable = False
    narrow = [array.astype(np.int32) for array in arrays]
    for given_arrays in (strided, fixed, narrow):
        order = order_forest(*given_arrays)
        assert order[2:] == expected[2:]
        for got, wanted in zip(order[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == wanted.dtype


def test_shares_are_exact_where_they_can_be() -> None:
    # a root of 8 for 4 rows, one of which sees 4 of it; children of 2 and of 3 for two rows
    found = ordered([-1, 0, 0], [8, 2, 3], [0, 1, 2, 2], [4, 2, 3, 3])
    shares = row_shares(found, np.array([-1, 0, 0], dtype=np.int32), np.array([8, 2, 3]))
    below = 4 / 4 + 4 / 3
    np.testing.assert_allclose(shares, [1.0, below + 2, below + 1.5, below + 1.5])


@pytest.mark.parametrize(
    "parent, query_node, message",
    [
        ([-1, 2], [0], "a parent is no node"),
        ([-1, -2], [0], "a parent is no node"),
        ([1, 0], [0], "cycle"),
        ([-1, 1], [0], "cycle"),
        ([-1, 0], [2], "a row's node does not exist"),
        ([-1, 0], [-1], "a row's node does not exist"),
    ],
)
def test_indices_out_of_range_stop_before_a_wild_write(
    parent: list[int], query_node: list[int], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        ordered(parent, [1, 1], query_node, [1])


def test_first_rows_checks_its_nodes() -> None:
    forest = Forest.from_nodes([-1, 0], [3, 2], [0, 3], [0, 1], [2, 2])
    first = forest.first_row(np.array([0, 0, 0, 1, 1]), np.array([0, 2, 9, -1, 2]))
    assert first.tolist() == [0, 1, 1, 1, 2]
    order = order_forest(forest.parent, forest.length, forest.query_node, forest.query_len)
    for node in (-1, 2):
        with pytest.raises(AssertionError, match="a token's node does not exist"):
            first_rows(order, np.array([node]), np.array([0]))
    with pytest.raises(AssertionError, match="differ in number"):
        first_rows(order, np.array([0, 1]), np.array([0]))
