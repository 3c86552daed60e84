"""From cursors to a Forest: nodes, runs and rows; slots checked against the tree itself."""

from __future__ import annotations

import pytest

from ramify.cache import build_forest

PROMPT = list(range(100, 120))


def test_rows_of_two_trees_share_their_ancestors(make_tree):
    tree = make_tree(128, reserve=0)
    trunk, plain = tree.opened(PROMPT), tree.opened([1, 2, 3])
    twin = tree.fork(trunk)
    tree.grow(trunk, [7])
    tree.grow(twin, [8, 9])
    forest = build_forest([(c.node, c.offset) for c in (twin, plain, trunk)])
    forest.validate()
    assert forest.parent.tolist() == [-1, 0, -1, 0]
    assert forest.length.tolist() == [20, 2, 3, 1]
    assert forest.query_node.tolist() == [1, 2, 3]
    assert forest.query_len.tolist() == [2, 3, 1]
    assert forest.path_len.tolist() == [22, 3, 21]
    assert (forest.unique_tokens, forest.path_tokens) == (26, 46)


def test_the_order_of_rows_does_not_matter_for_an_ancestor(make_tree):
    """A node that has rows of its own and rows below is whole, whichever row comes first."""
    tree = make_tree(128, reserve=0)
    trunk = tree.opened(PROMPT)
    branch = tree.fork(trunk)
    tree.grow(branch, [7])
    rows = [(trunk.node, 5), (branch.node, 1)]
    for order in (rows, rows[::-1]):
        forest = build_forest(order)
        forest.validate()
        assert sorted(forest.length.tolist()) == [1, 20]


def test_a_prefill_chunk_is_a_row_per_token(make_tree):
    tree = make_tree(128, reserve=16)
    cursor = tree.open(PROMPT)
    tree.reserve_slots(cursor.node, 12)
    forest = build_forest([(cursor.node, seen) for seen in range(5, 13)])
    forest.validate()
    assert forest.length.tolist() == [12] and forest.run_len.tolist() == [12]
    assert forest.row_position.tolist() == list(range(4, 12))


def test_visible_tokens_may_exceed_what_rows_need(make_tree):
    tree = make_tree(128, reserve=0)
    cursor = tree.opened(PROMPT)
    rows = [(cursor.node, 5)]
    for visible, length in ((None, 5), ({cursor.node: 9}, 9)):
        forest = build_forest(rows, visible)
        forest.validate()
        assert forest.length.tolist() == forest.run_len.tolist() == [length]
    with pytest.raises(AssertionError, match="rows see 5 tokens, not 4"):
        build_forest(rows, {cursor.node: 4})


def test_runs_follow_the_extents_of_a_shredded_node(make_tree):
    tree = make_tree(16, reserve=0)
    squares = [tree.opened([token]) for token in range(16)]
    tree.prune(squares[::2])
    cursor = tree.opened([7] * 8, reuse=False)
    forest = build_forest([(cursor.node, 5), (squares[1].node, 1)])
    forest.validate()
    assert forest.run_indptr.tolist() == [0, 5, 6]
    assert forest.run_begin.tolist() == [0, 2, 4, 6, 8, 1]
    assert forest.run_len.tolist() == [1] * 6


def test_tokens_without_slots_cannot_be_visible(make_tree):
    tree = make_tree(16)
    cursor = tree.open([1, 2, 3])
    with pytest.raises(AssertionError, match="visible without slots"):
        build_forest([(cursor.node, 1)])


def test_no_rows_give_an_empty_forest():
    forest = build_forest([])
    assert (forest.num_nodes, forest.num_rows, forest.unique_tokens) == (0, 0, 0)
    assert forest.run_indptr.tolist() == [0]
