"""Prefix matching at token granularity, publishing and deduplication."""

from __future__ import annotations

import pytest

from ramify.cache import Extent
from ramify.cache.radix import shared_prefix

PROMPT = list(range(100, 120))


@pytest.mark.parametrize("num_shared", range(1, 20))
def test_matches_at_token_granularity(make_tree, num_shared):
    tree = make_tree(64, reserve=0)
    tree.cached(PROMPT)
    cursor = tree.open([*PROMPT[:num_shared], 7, 8])
    assert (cursor.matched, cursor.length, tree.pending(cursor)) == (num_shared, num_shared + 2, 2)
    tree.check_integrity()


def test_a_full_match_leaves_nothing_pending(make_tree):
    tree = make_tree(64)
    tree.cached(PROMPT)
    cursor = tree.open(PROMPT)
    assert (cursor.matched, tree.pending(cursor)) == (20, 0)
    last = tree.open(PROMPT[:-1])
    tree.append(last, PROMPT[-1:])
    assert (last.matched, tree.pending(last)) == (19, 1)


def test_nothing_is_matched_without_reuse(make_tree):
    tree = make_tree(64)
    tree.cached(PROMPT)
    cursor = tree.open(PROMPT, reuse=False)
    assert (cursor.matched, tree.pending(cursor)) == (0, 20)


def test_live_branches_can_be_matched_too(make_tree):
    tree = make_tree(64)
    tree.opened(PROMPT)
    assert tree.open([*PROMPT, 1]).matched == 20


def test_only_computed_tokens_match_but_pending_ones_are_in_flight(make_tree):
    tree = make_tree(64)
    cursor = tree.open(PROMPT)
    tree.reserve_slots(cursor.node, 6)
    tree.mark_computed(cursor.node, 6)
    assert tree.in_flight_match([*PROMPT, 1], tree.coming(tree.cursors)) == 20
    assert tree.open([*PROMPT, 1]).matched == 6
    tree.check_integrity()


def test_the_longest_of_several_equal_beginnings_wins(make_tree):
    tree = make_tree(128)
    trunk = tree.opened(PROMPT)
    for tail in ([1, 2], [1, 2, 3, 4], [1, 9]):
        branch = tree.fork(trunk)
        tree.grow(branch, tail)
    assert tree.open([*PROMPT, 1, 2, 3, 5]).matched == 23


def test_publishing_a_duplicate_frees_its_slots(make_tree):
    tree = make_tree(64, reserve=0)
    tree.cached(PROMPT)
    assert tree.cached(PROMPT, reuse=False) == 20
    assert tree.num_free == 44 and len(tree.root.children) == 1
    tree.check_integrity()


def test_what_goes_on_behind_a_duplicate_moves_below_its_twin(make_tree):
    tree = make_tree(64, reserve=0)
    tree.cached(PROMPT)
    assert tree.cached([*PROMPT[:15], 1, 2, 3], reuse=False) == 15
    assert tree.num_free == 64 - 20 - 3
    assert tree.open([*PROMPT[:15], 1, 2, 3]).matched == 18
    assert tree.open(PROMPT).matched == 20
    tree.check_integrity()


def test_a_duplicate_in_use_stays_until_its_last_path_ends(make_tree):
    tree = make_tree(64, reserve=0)
    first, second = tree.opened(PROMPT), tree.opened(PROMPT, reuse=False)
    user = tree.fork(second)
    tree.close(first, keep=True)
    assert tree.close(second, keep=True) == 0
    assert tree.close(user, keep=True) == 20
    tree.check_integrity()


def test_a_finished_conversation_becomes_one_node_again(make_tree):
    tree = make_tree(256, reserve=32)
    for end in (20, 31, 57):
        cursor = tree.opened(list(range(end - 3)))
        tree.grow(cursor, list(range(end - 3, end)))
        tree.close(cursor, keep=True)
    (node,) = tree.root.children
    assert node.tokens == list(range(57)) and node.children == []


def test_the_cached_prefix_is_not_extended_in_place(make_tree):
    tree = make_tree(64)
    tree.cached(PROMPT)
    cursor = tree.open(PROMPT)
    tree.grow(cursor, [1])
    assert [len(node.tokens) for node in tree.path(cursor)] == [20, 1]
    tree.prune([cursor])
    assert tree.evictable == 20


def test_slots_survive_splits_merges_and_moves(make_tree):
    tree = make_tree(64, reserve=0)
    tree.cached(PROMPT)
    assert tree.root.children[0].extents == [Extent(0, 20)]
    cursor = tree.open([*PROMPT[:5], 1])
    assert tree.slots(tree.open(PROMPT)) == list(range(20))
    assert tree.slots_of(tree.path(cursor)[0], 2, 4).tolist() == [2, 3]
    assert tree.slots_of(cursor.node).tolist() == []


@pytest.mark.parametrize("size", [0, 1, 2, 3, 17])
def test_shared_prefix_finds_every_first_difference(size):
    for place in range(size):
        assert (
            shared_prefix(list(range(size)), [*range(place), -1, *range(place + 1, size)]) == place
        )
    assert shared_prefix(list(range(size)), list(range(size + 2))) == size
