"""What happens to paths: fork, append, prune, merge, drop and pins, one story a test."""

from __future__ import annotations

import pytest

from ramify.cache import Extent, TokenTree
from ramify.core.errors import InputError

PROMPT = list(range(100, 120))


def test_fork_and_append_allocate_nothing(make_tree):
    tree = make_tree(64, reserve=0)
    trunk = tree.opened(PROMPT)
    twin, early = tree.fork(trunk), tree.fork(trunk, 7)
    for cursor in (twin, early, trunk):
        tree.append(cursor, [1, 2])
    assert tree.num_free == 64 - 20
    assert [tree.pending(c) for c in (trunk, twin, early)] == [2, 2, 2]
    assert [c.length for c in (trunk, twin, early)] == [22, 22, 9]
    tree.check_integrity()


def test_fork_inside_a_node_shares_its_slots(make_tree):
    tree = make_tree(64, reserve=0)
    trunk = tree.opened(PROMPT)
    before = tree.slots(trunk)
    early = tree.fork(trunk, 7)
    assert tree.slots(trunk) == before
    assert tree.slots(early) == before[:7]
    assert [len(node.tokens) for node in tree.path(trunk)] == [7, 13]


@pytest.mark.parametrize("at", [-1, 21])
def test_fork_beyond_the_path_is_refused(make_tree, at):
    tree = make_tree(64)
    with pytest.raises(InputError, match=rf"at: expected an int in \[0, 20\], got {at}"):
        tree.fork(tree.opened(PROMPT), at)


def test_fork_at_zero_starts_a_tree_of_its_own(make_tree):
    tree = make_tree(64)
    empty = tree.fork(tree.opened(PROMPT), 0)
    assert (empty.length, empty.offset, tree.path(empty)) == (0, 0, [])
    tree.grow(empty, [1, 2])
    assert empty.node.tokens == [1, 2]
    tree.check_integrity()


def test_a_sole_path_grows_in_place_in_one_extent(make_tree):
    tree = make_tree(512, reserve=4)
    cursor = tree.opened(PROMPT)
    for token in range(100):
        tree.grow(cursor, [token])
    assert len(tree.path(cursor)) == 1
    assert cursor.node.extents == [Extent(0, 120)]


def test_the_first_child_takes_over_the_reservation(make_tree):
    tree = make_tree(512, reserve=16)
    trunk = tree.opened(PROMPT)
    room = list(trunk.node.reserved)
    assert room[0].begin == 20
    parent, other = trunk.node, tree.fork(trunk)
    tree.append(trunk, [1])
    assert trunk.node.parent is parent and parent.reserved == []
    assert trunk.node.reserved == room
    tree.grow(other, [2])
    tree.compute(trunk)
    assert trunk.node.extents == [Extent(20, 21)]
    assert other.node.extents[0].begin >= room[0].end
    tree.check_integrity()


@pytest.mark.parametrize(("at", "is_upper"), [(5, False), (10, False), (15, True)])
def test_a_split_leaves_the_reservation_with_the_half_that_grows_next(make_tree, at, is_upper):
    tree = make_tree(512, reserve=16)
    trunk = tree.open(PROMPT)
    tree.reserve_slots(trunk.node, 10)
    room = list(trunk.node.reserved)
    assert room[0].begin == 10
    upper = tree.fork(trunk, at).node
    assert (upper.reserved, trunk.node.reserved) == ((room, []) if is_upper else ([], room))
    tree.check_integrity()


def test_a_parent_keeps_the_room_that_its_own_tokens_need(make_tree):
    tree = make_tree(512, reserve=16)
    trunk = tree.open(PROMPT)
    tree.reserve_slots(trunk.node, 10)
    parent, branch = trunk.node, tree.fork(trunk)
    tree.append(branch, [1])
    assert parent.reserved and branch.node.reserved == []
    tree.compute(branch)
    assert parent.extents == [Extent(0, 20)] and branch.node.extents == [Extent(20, 21)]


def test_the_surviving_line_merges_into_one_node(make_tree):
    tree = make_tree(512, reserve=16)
    trunk = tree.opened(PROMPT)
    other = tree.fork(trunk)
    tree.grow(trunk, [1, 2])
    tree.grow(other, [3])
    assert len(tree.path(trunk)) == 2
    freed = tree.prune([other])
    assert freed >= 1 and len(tree.path(trunk)) == 1
    assert trunk.node.tokens == [*PROMPT, 1, 2]
    assert trunk.node.extents == [Extent(0, 22)]
    tree.check_integrity()


def test_a_lone_child_elsewhere_in_the_pool_stays_a_child(make_tree):
    tree = make_tree(64, reserve=0)
    trunk = tree.opened(PROMPT)
    other = tree.fork(trunk)
    tree.grow(trunk, [1])
    tree.grow(other, [2])
    tree.prune([trunk])
    assert [node.extents for node in tree.path(other)] == [[Extent(0, 20)], [Extent(21, 22)]]


def test_no_merge_across_the_end_of_a_path(make_tree):
    tree = make_tree(512)
    trunk = tree.opened(PROMPT)
    other, third = tree.fork(trunk), tree.fork(trunk)
    tree.grow(other, [1])
    tree.prune([third])
    assert len(tree.path(other)) == 2
    tree.prune([trunk])
    assert len(tree.path(other)) == 1


def test_closing_a_fork_undoes_its_split(make_tree):
    tree = make_tree(64)
    trunk = tree.opened(PROMPT)
    tree.prune([tree.fork(trunk, 3), tree.fork(trunk, 11)])
    assert len(tree.path(trunk)) == 1 and trunk.node.tokens == PROMPT


def test_prune_frees_the_whole_subtree_and_says_how_much(make_tree):
    tree = make_tree(256, reserve=0)
    trunk = tree.opened(PROMPT)
    doomed = [tree.fork(trunk) for _ in range(5)]
    for token, cursor in enumerate(doomed):
        tree.grow(cursor, [token] * 3)
    deeper = tree.fork(doomed[0], 21)
    tree.grow(deeper, [9, 9])
    assert tree.num_free == 256 - 20 - 15 - 2
    assert tree.prune([*doomed, deeper]) == 17
    assert tree.num_free == 256 - 20
    assert tree.evictable == 0 and trunk.node.children == []
    tree.check_integrity()


def test_pruned_branches_never_reach_the_cache_but_their_cached_prefix_does(make_tree):
    tree = make_tree(256, reserve=0)
    tree.cached(PROMPT)
    branch = tree.opened([*PROMPT, 1, 2])
    assert branch.matched == 20 and tree.evictable == 0
    assert tree.prune([branch]) == 2
    assert tree.evictable == 20
    assert tree.in_flight_match([*PROMPT, 1, 2], tree.coming(tree.cursors)) == 20


def test_close_keep_trims_what_is_not_computed(make_tree):
    tree = make_tree(64, reserve=0)
    cursor = tree.opened(PROMPT)
    tree.append(cursor, [1, 2, 3])
    tree.reserve_slots(cursor.node, 22)
    tree.mark_computed(cursor.node, 21)
    assert tree.close(cursor, keep=True) == 1
    assert tree.evictable == 21
    assert tree.in_flight_match([*PROMPT, 1, 2, 3], tree.coming(tree.cursors)) == 21
    tree.check_integrity()


def test_close_keep_of_a_path_never_computed_leaves_nothing(make_tree):
    tree = make_tree(64)
    assert tree.close(tree.open(PROMPT), keep=True) == 0
    assert tree.root.children == []


def test_drop_frees_what_the_path_alone_uses(make_tree):
    tree = make_tree(64, reserve=0)
    trunk = tree.opened(PROMPT)
    branch = tree.fork(trunk)
    tree.grow(branch, [1, 2, 3])
    assert tree.drop(branch) == 3
    assert tree.pending(branch) == 3 and tree.pending(trunk) == 0
    assert tree.drop(branch) == 0
    assert tree.drop(trunk) == 0  # the branch runs through it
    tree.compute(branch)
    assert tree.pending(branch) == 0
    tree.check_integrity()


def test_paths_dropped_together_give_up_what_they_share(make_tree):
    tree = make_tree(64, reserve=8)
    trunk = tree.opened(PROMPT)
    branch = tree.fork(trunk)
    tree.grow(trunk, [4])
    tree.grow(branch, [1, 2, 3])
    used = 64 - tree.num_free
    assert used >= 24
    assert tree.drop(trunk, branch) == used
    assert tree.num_free == 64 and tree.pending(trunk) == 21
    tree.check_integrity()


def test_private_slots_are_those_of_the_path_alone(make_tree):
    tree = make_tree(64, reserve=0)
    trunk = tree.opened(PROMPT)
    branch = tree.fork(trunk)
    tree.grow(branch, [1, 2, 3])
    assert [tree.private_slots(c) for c in (trunk, branch)] == [0, 3]
    tree.prune([trunk])
    assert tree.private_slots(branch) == 23
    tree.pin(branch)
    assert tree.private_slots(branch) == 0


def test_drop_takes_cached_branches_below_along(make_tree):
    tree = make_tree(64, reserve=0)
    trunk = tree.opened(PROMPT)
    finished = tree.fork(trunk)
    tree.grow(finished, [1, 2])
    tree.close(finished, keep=True)
    assert tree.evictable == 2
    assert tree.drop(trunk) == 22
    assert tree.num_free == 64 and tree.evictable == 0
    tree.check_integrity()


def test_a_pinned_path_is_neither_dropped_nor_evicted_nor_pruned(make_tree):
    tree = make_tree(64, reserve=0)
    cursor = tree.opened(PROMPT)
    tree.pin(cursor)
    assert tree.drop(cursor) == 0
    with pytest.raises(InputError, match=r"cursor\.pins: expected 0; unpin it first, got 1"):
        tree.prune([cursor])
    assert tree.close(cursor, keep=True) == 0
    assert tree.evictable == 0 and tree.evict(64) == 0
    assert tree.open(PROMPT).matched == 20
    tree.check_integrity()


def test_unpinning_a_closed_path_makes_it_evictable(make_tree):
    tree = make_tree(64, reserve=0)
    cursor = tree.opened(PROMPT)
    tree.pin(cursor)
    tree.pin(cursor)
    tree.close(cursor, keep=True)
    tree.unpin(cursor)
    assert tree.evictable == 0
    tree.unpin(cursor)
    assert tree.evictable == 20 and tree.cursors == {}
    with pytest.raises(InputError, match=r"cursor\.pins: expected >= 1, got 0"):
        tree.unpin(cursor)
    tree.check_integrity()


def test_a_pin_follows_its_cursor(make_tree):
    tree = make_tree(64, reserve=0)
    cursor = tree.opened(PROMPT)
    other = tree.fork(cursor)
    tree.pin(cursor)
    tree.grow(cursor, [1])
    assert cursor.node.pins == 1 and other.node.pins == 0
    assert tree.drop(cursor, other) == 0


def test_mark_computed_asks_for_parents_first(make_tree):
    tree = make_tree(64)
    trunk = tree.open(PROMPT)
    branch = tree.fork(trunk)
    tree.append(branch, [1])
    tree.reserve_slots(branch.node, 1)
    with pytest.raises(AssertionError, match="computed before its parent"):
        tree.mark_computed(branch.node, 1)


def test_a_closed_cursor_is_of_no_use(make_tree):
    tree = make_tree(64)
    cursor = tree.opened(PROMPT)
    tree.prune([cursor])
    with pytest.raises(AssertionError, match="not an open path"):
        tree.append(cursor, [1])


@pytest.mark.parametrize("bad", [{"reserve": -1}, {"reserve_cap": -2}], ids=str)
def test_negative_sizes_are_refused(bad):
    with pytest.raises(InputError, match="expected an int >= 0"):
        TokenTree(8, **bad)
