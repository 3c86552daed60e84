"""Forest: preorder, intervals and shares against explicit ancestor masks; every bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.testing.trees import NAMED, RandomForestSpec, named, random_forest

SHAPES = st.builds(
    RandomForestSpec,
    num_roots=st.integers(1, 6),
    max_depth=st.integers(1, 20),
    max_fan_out=st.sampled_from([1, 2, 5, 64]),
    max_nodes=st.integers(6, 90),
    max_length=st.sampled_from([1, 5, 30]),
    num_rows=st.sampled_from([1, 2, 17, 100, 300]),
)


def ancestors(forest: Forest, node: int) -> list[int]:
    """The node's proper ancestors, nearest first, by walking the parent array."""
    found = []
    while (node := int(forest.parent[node])) >= 0:
        found.append(node)
    return found


def explicit_masks(forest: Forest) -> list[np.ndarray]:
    """Per node a mask [Q, length]: which row, in the user's order, sees which token."""
    masks = [np.zeros((forest.num_rows, int(tokens)), dtype=bool) for tokens in forest.length]
    for row, (node, seen) in enumerate(zip(forest.query_node, forest.query_len, strict=True)):
        masks[node][row, :seen] = True
        for above in ancestors(forest, int(node)):
            masks[above][row, :] = True
    return masks


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spec=SHAPES)
def test_intervals_equal_explicit_ancestor_masks(seed: int, spec: RandomForestSpec) -> None:
    forest = random_forest(seed, spec).forest
    place = np.empty(forest.num_rows, dtype=np.int64)
    place[forest.row_order] = np.arange(forest.num_rows)
    for node, mask in enumerate(explicit_masks(forest)):
        lo, hi = forest.row_lo[node], forest.row_hi[node]
        inside = (place >= lo) & (place < hi)
        tokens = np.arange(mask.shape[1])
        by_position = forest.node_start[node] + tokens <= forest.row_position[:, None]
        np.testing.assert_array_equal(inside[:, None] & by_position, mask)
        first = forest.first_row(np.full(len(tokens), node), tokens)
        np.testing.assert_array_equal((place[:, None] >= first) & (place[:, None] < hi), mask)
        assert forest.visible_len[node] == mask.any(axis=0).sum()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spec=SHAPES)
def test_sums_and_shares_equal_explicit_counts(seed: int, spec: RandomForestSpec) -> None:
    forest = random_forest(seed, spec).forest
    masks = explicit_masks(forest)
    visible = np.concatenate(masks, axis=1)
    assert forest.unique_tokens == visible.any(axis=0).sum()
    assert forest.path_tokens == visible.sum()
    np.testing.assert_array_equal(forest.path_len, visible.sum(axis=1))
    share = (visible / np.maximum(visible.sum(axis=0), 1)).sum(axis=1)
    np.testing.assert_allclose(forest.row_share, share, rtol=1e-9, atol=1e-9)
    assert forest.row_share.sum() == pytest.approx(forest.unique_tokens)
    start = [
        sum(int(forest.length[a]) for a in ancestors(forest, n)) for n in range(forest.num_nodes)
    ]
    np.testing.assert_array_equal(forest.node_start, start)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spec=SHAPES)
def test_preorder_is_depth_first(seed: int, spec: RandomForestSpec) -> None:
    forest = random_forest(seed, spec).forest
    expected: list[int] = []
    stack = [int(root) for root in np.flatnonzero(forest.parent < 0)[::-1]]
    while stack:
        node = stack.pop()
        expected.append(node)
        stack += [int(child) for child in np.flatnonzero(forest.parent == node)[::-1]]
    assert forest.node_order.tolist() == expected
    nodes = forest.query_node[forest.row_order]
    keys = list(zip(forest.node_rank[nodes], forest.query_len[forest.row_order], strict=True))
    assert keys == sorted(keys)


def test_equal_rows_keep_the_order_given() -> None:
    forest = Forest.from_nodes([-1], [3], [0], [0, 0, 0, 0], [3, 1, 3, 1])
    assert forest.row_order.tolist() == [1, 3, 0, 2]


def test_a_chain_of_thousands_and_nothing_at_all() -> None:
    count = 3000
    chain = Forest.from_nodes(
        np.arange(-1, count - 1), np.ones(count, int), np.arange(count), [count - 1]
    )
    assert chain.node_start.tolist() == list(range(count))
    assert chain.node_order.tolist() == list(range(count))
    assert chain.unique_tokens == chain.path_tokens == count
    empty = Forest.from_nodes([], [], [], [])
    assert (empty.unique_tokens, empty.path_tokens, empty.row_order.size) == (0, 0, 0)
    assert empty.row_share.size == 0
    rowless = Forest.from_nodes([-1, 0], [4, 2], [0, 4], [])
    assert rowless.unique_tokens == 0


@pytest.mark.parametrize("name", NAMED)
def test_named_shapes_are_sound(name: str) -> None:
    case = named(name)
    case.forest.validate()
    assert case.forest.unique_tokens <= case.forest.path_tokens
    assert (case.forest.run_begin + case.forest.run_len).max() <= case.num_slots


GOOD = {"parent": [-1, 0], "length": [4, 2], "kv_begin": [0, 4], "query_node": [1, 0]}
BAD = {
    "cycle": ({"parent": [1, 0]}, r"parent\[0\].*cycle"),
    "own_parent": ({"parent": [-1, 1]}, r"parent\[1\].*cycle"),
    "orphan": ({"parent": [-1, 7]}, r"parent\[1\] \(an orphan\): expected .*below 2, got 7"),
    "below_root_mark": ({"parent": [-1, -2]}, r"parent\[1\].*got -2"),
    "negative_length": ({"length": [4, -2]}, r"length\[1\]: expected at least 0, got -2"),
    "length_count": ({"length": [4]}, r"length: expected 2 elements, got 1"),
    "begin_count": ({"kv_begin": [0]}, r"kv_begin: expected 2 elements, got 1"),
    "negative_slot": ({"kv_begin": [0, -1]}, r"run_begin\[1\]: expected at least 0, got -1"),
    "overlap": ({"kv_begin": [0, 3]}, r"runs of node 1: expected slots of its own, from 4.*node 0"),
    "row_node": ({"query_node": [2]}, r"query_node\[0\]: expected a node in \[0, 2\), got 2"),
    "row_negative": ({"query_node": [-1]}, r"query_node\[0\].*got -1"),
    "query_len_long": ({"query_len": [3, 4]}, r"query_len\[0\]: expected 0 to 2 .*got 3"),
    "query_len_negative": ({"query_len": [2, -1]}, r"query_len\[1\].*got -1"),
    "query_len_count": ({"query_len": [1]}, r"query_len: expected 2 elements, got 1"),
    "floats": ({"length": [4.0, 2.5]}, r"length: expected integers, got dtype float64"),
    "nested": ({"parent": [[-1, 0]]}, r"parent: expected one dimension"),
    "ragged": ({"parent": [[-1], [0, 1]]}, r"parent: expected a flat sequence of integers"),
    "too_large": ({"parent": [-1, 2**40]}, r"parent: expected values that fit int32"),
    "both_layouts": ({"runs": [[(0, 4)], [(4, 2)]]}, r"exactly one of the two, got both"),
    "no_layout": ({"kv_begin": None}, r"exactly one of the two, got neither"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_input_names_both_sides(change: dict, message: str) -> None:
    Forest.from_nodes(**GOOD)
    with pytest.raises(InputError, match=message):
        Forest.from_nodes(**{**GOOD, **change})


BAD_RUNS = {
    "short": ([[(0, 3)], [(4, 2)]], r"runs of node 0: expected 4 tokens \(its length\), got 3"),
    "inside_one_node": ([[(0, 2), (1, 2)], [(4, 2)]], r"runs of node 0.*from 2 on"),
    "node_count": ([[(0, 4)]], r"runs: expected 2 lists, got 1"),
    "triple": ([[(0, 4, 1)], [(4, 2)]], r"runs: expected pairs"),
    "negative": ([[(0, 5), (9, -1)], [(14, 2)]], r"run_len\[1\]: expected at least 0, got -1"),
}


@pytest.mark.parametrize("runs, message", BAD_RUNS.values(), ids=BAD_RUNS)
def test_bad_runs_name_both_sides(runs: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Forest.from_nodes([-1, 0], [4, 2], None, [1], runs=runs)
