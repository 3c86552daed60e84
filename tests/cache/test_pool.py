"""Reservations and pressure: who gets which slots when they grow scarce, and in which order."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.cache import Extent
from ramify.cache.slots import num_slots_in
from ramify.core.errors import OutOfSlots

PROMPT = list(range(100, 120))


def test_reservations_double_to_the_cap(make_tree):
    tree = make_tree(4096, reserve=8, reserve_cap=40)
    cursor = tree.open([0])
    rooms = []
    for token in range(120):
        before = num_slots_in(cursor.node.reserved)
        tree.compute(cursor)
        if (after := num_slots_in(cursor.node.reserved)) > before:
            rooms.append(after)
        tree.append(cursor, [token])
    # as much again as the node holds when its room is used up: 1 + 8, 10 + 10, 21 + 21, 43 + cap
    assert rooms == [8, 10, 21, 40, 40]
    assert cursor.node.extents[0].begin == 0 and len(cursor.node.extents) == 1


def test_known_tokens_of_a_chunked_prompt_get_room_ahead(make_tree):
    tree = make_tree(1024, reserve=8)
    first, second = tree.open([1] * 100), tree.open([2] * 100)
    for end in (30, 60, 100):
        tree.reserve_slots(first.node, end)
        tree.reserve_slots(second.node, end)
    assert len(first.node.extents) == len(second.node.extents) == 1


def test_reservations_fade_as_the_pool_fills(make_tree):
    """Each takes at most a quarter of what is left: 63 // 4, then (48 - 1) // 4, and so on."""
    tree = make_tree(64, reserve=64)
    rooms = [num_slots_in(tree.opened([token]).node.reserved) for token in range(10)]
    assert rooms == [15, 11, 8, 6, 4, 3, 2, 1, 1, 0]


def test_room_ahead_does_not_cost_contiguity(make_tree):
    """Ten holes of ten slots: eight tokens go into one of them, with room for the two others."""
    tree = make_tree(110, reserve=0)
    holes = []
    for token in range(10):
        holes.append(tree.opened([token] * 10, reuse=False))
        tree.opened([token], reuse=False)
    tree.prune(holes)
    tree.pool.reserve = 64
    node = tree.opened([7] * 8, reuse=False).node
    assert [extent.size for extent in node.extents] == [8]
    assert [extent.size for extent in node.reserved] == [2]


def test_zero_turns_reservations_off(make_tree):
    tree = make_tree(64, reserve=0)
    tree.opened(PROMPT)
    assert (tree.num_free, tree.num_reserved) == (44, 0)


def test_reservations_are_taken_back_under_pressure(make_tree):
    tree = make_tree(64, reserve=16)
    first = tree.opened([1] * 4)
    assert tree.num_reserved > 0 and tree.available == 60
    second = tree.opened(list(range(58)))
    assert first.node.reserved == [] and tree.available == 2
    assert second.node.num_slots == 58
    tree.check_integrity()


def test_reservations_go_before_the_prefix_cache(make_tree):
    tree = make_tree(64, reserve=16)
    tree.cached(PROMPT)
    tree.opened([1] * 4)
    assert tree.num_reserved > 0
    tree.opened([2] * (tree.num_free + tree.num_reserved))
    assert tree.evictable == 20
    tree.opened([3])
    assert tree.evictable == 0


def test_out_of_slots_changes_nothing(make_tree):
    tree = make_tree(64, reserve=16)
    tree.cached(PROMPT)
    holder = tree.opened([1] * 4)
    greedy = tree.open([2] * 61)
    before = (tree.num_free, tree.num_reserved, tree.evictable, list(holder.node.reserved))
    with pytest.raises(OutOfSlots) as caught:
        tree.reserve_slots(greedy.node, 61)
    assert (caught.value.needed, caught.value.available) == (61, 60)
    assert before == (tree.num_free, tree.num_reserved, tree.evictable, list(holder.node.reserved))
    tree.reserve_slots(greedy.node, 60)
    assert tree.available == 0
    tree.check_integrity()


def test_a_checkerboard_of_live_nodes_still_serves_every_request_that_fits(make_tree):
    tree = make_tree(64, reserve=0)
    squares = [tree.opened([token]) for token in range(64)]
    tree.prune(squares[::2])
    assert tree.pool.allocator.largest_free == 1 and tree.num_free == 32
    cursor = tree.opened([7] * 32, reuse=False)
    assert tree.slots(cursor) == list(range(0, 64, 2))
    assert len(cursor.node.extents) == 32
    with pytest.raises(OutOfSlots):
        tree.opened([8], reuse=False)
    tree.check_integrity()


def test_growth_prefers_the_slots_behind_the_node(make_tree):
    tree = make_tree(64, reserve=0)
    cursor, behind = tree.opened([1] * 4), tree.opened([2] * 10)
    hole = tree.opened([3] * 2)
    tree.opened([4] * 2)
    tree.prune([behind, hole])
    tree.grow(cursor, [5, 5])  # best fit alone would take the hole of two slots
    assert cursor.node.extents == [Extent(0, 6)]


def test_a_child_without_room_behind_its_parent_stays_in_one_piece(make_tree):
    tree = make_tree(32, reserve=0)
    trunk, gap = tree.opened([1] * 4), tree.opened([2] * 2)
    tree.opened([3])
    tree.prune([gap])
    twin = tree.fork(trunk)
    tree.grow(twin, [5, 6, 7])
    assert twin.node.extents == [Extent(7, 10)]


def test_least_recently_used_leaves_go_first(make_tree):
    tree = make_tree(64, reserve=0)
    for token in (1, 2, 3):
        tree.cached([token] * 10)
    tree.prune([tree.open([1] * 10)])  # used again: now the youngest
    for survivors in ([1, 3], [1], []):
        assert tree.evict(1) == 10
        assert sorted(node.tokens[0] for node in tree.root.children) == survivors
    assert tree.evict(1) == 0


def test_eviction_goes_leaf_upward(make_tree):
    tree = make_tree(64, reserve=0)
    tree.cached([*PROMPT, 1, 2])
    tree.cached([*PROMPT, 3])
    assert tree.evict(1) == 2
    assert tree.evict(1) == 1
    assert tree.evict(1) == 20
    assert tree.num_free == 64


def test_eviction_spares_what_a_live_path_uses(make_tree):
    tree = make_tree(64, reserve=0)
    tree.cached(PROMPT)
    cursor = tree.open(PROMPT[:12])
    assert tree.evictable == 8 and tree.evict(64) == 8
    assert tree.pending(cursor) == 0


def test_many_revivals_leave_a_short_eviction_queue(make_tree):
    tree = make_tree(64, reserve=0)
    for _ in range(200):
        tree.cached(PROMPT)
        tree.cached([*PROMPT, 1])
        tree.evict(64)
        tree.cached([5])
    assert len(tree.pool.queue.nodes()) < 40
    tree.check_integrity()


def test_branches_that_run_out_of_room_together_get_equal_lines(make_tree):
    tree = make_tree(400, reserve=4)
    root = tree.open([1, 2, 3])
    branches = [tree.fork(root) for _ in range(3)]
    for branch in branches:
        tree.append(branch, [7])
        tree.reserve_slots(branch.node, 1)
    assert all(0 < tree.room_ahead(branch) <= 8 for branch in branches)
    for branch in branches:
        tree.make_room_ahead(branch, 50)
    assert [tree.room_ahead(branch) for branch in branches] == [50] * 3
    lines = [tree.slots_of(branch.node)[-1] for branch in branches]
    assert len(set(lines)) == 3
    tree.check_integrity()
    held = [tree.slots_of(branch.node).tolist() for branch in branches]
    for branch in branches:
        tree.make_room_ahead(branch, 80)  # half of it is there already
    assert [tree.slots_of(branch.node).tolist() for branch in branches] == held
    tree.make_room_ahead(branches[0], 4000)  # nowhere in a row: nothing moves
    assert tree.room_ahead(branches[0]) == 50
    tree.append(tree.fork(branches[0]), [9])
    tree.make_room_ahead(branches[0], 200)
    assert tree.room_ahead(branches[0]) == 0, "a node with a child does not grow in place"


@pytest.mark.parametrize("counts", [[7, 1, 30, 2], [39, 1], [40], [1, 38, 1]])
def test_tokens_take_their_room_at_once_as_they_do_one_by_one(make_tree, counts):
    """Up to the last slot of it, with a neighbour behind."""
    trees = [make_tree(400, reserve=4) for _ in range(2)]
    paths = [(tree.open([1]), tree.open([2])) for tree in trees]
    for tree, pair in zip(trees, paths, strict=True):
        for path in pair:
            tree.reserve_slots(path.node, 1)
            tree.make_room_ahead(path, 40)
    (whole, _), (single, _) = paths
    for count in counts:
        trees[0].append(whole, range(count))
        trees[0].reserve_slots(whole.node, whole.length)
        for token in range(count):
            trees[1].append(single, [token])
            trees[1].reserve_slots(single.node, single.length)
        assert whole.node.extents == single.node.extents
        assert whole.node.reserved == single.node.reserved
        assert trees[0].num_reserved == trees[1].num_reserved
        for tree in trees:
            tree.check_integrity()
    assert not whole.node.reserved and len(whole.node.extents) == 1


def test_lines_are_equal_and_claimed_until_they_are_laid_or_returned(make_tree):
    tree = make_tree(100, reserve=8)
    root = tree.opened([1, 2, 3])
    tips = tree.fork_all([root] * 3)
    for token, tip in enumerate(tips):
        tree.append(tip, [token])
    tree.compute(tips[0])  # takes over the room behind the root
    before = tree.num_free
    lines = tree.claim_lines(2)
    assert lines.size == 1 + 8 and len(lines.begin) == 2 and tree.num_free == before - 2 * 9
    tree.lay(tips[1:], np.array([True, True]), lines)
    assert [tree.slots(tip)[-1] for tip in tips[1:]] == lines.begin.tolist()
    assert num_slots_in(tips[1].node.reserved) == 8
    tree.check_integrity()
    tree.return_lines(tree.claim_lines(5))
    tree.check_integrity()
    assert tree.num_free == before - 2 * 9


def test_lines_take_single_slots_where_no_more_is_free(make_tree):
    """Two holes of three slots are all that is free."""
    tree = make_tree(40, reserve=0)
    holes = []
    for token in range(10):
        holes.append(tree.opened([token] * 3, reuse=False))
        tree.opened([token], reuse=False)
    tree.prune(holes[:2])
    tree.pool.reserve = 64
    lines = tree.claim_lines(6)
    assert lines.size == 1 and lines.begin.tolist() == [0, 1, 2, 4, 5, 6]
    with pytest.raises(OutOfSlots):
        tree.claim_lines(1)
    assert tree.claim_lines(0).extents() == []
