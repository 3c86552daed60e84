"""`check_integrity` must see every kind of damage: each case breaks one thing in a sound tree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ramify.cache import Cursor, Extent, Node, TokenTree
from ramify.core.errors import IntegrityError

PROMPT = list(range(100, 120))


def lose_a_slot(tree: TokenTree) -> None:
    tree.pool.allocator.alloc(1)


def own_a_slot_twice(tree: TokenTree) -> None:
    first, second = tree.root.children[:2]
    second.extents[0] = Extent(first.extents[0].begin, first.extents[0].begin + second.num_slots)


def drop_a_reference(tree: TokenTree) -> None:
    tree.root.children[0].ref -= 1


def forget_a_cursor(tree: TokenTree) -> None:
    tree.cursors.popitem()


def register_a_stranger(tree: TokenTree) -> None:
    tree.cursors[Cursor(tree.root)] = None


def point_outside_the_tree(tree: TokenTree) -> None:
    stranger = Node([1])
    stranger.parent = tree.root
    next(iter(tree.cursors)).node = stranger


def compute_more_than_slots(tree: TokenTree) -> None:
    tree.root.children[-1].num_computed = 99


def compute_below_a_pending_parent(tree: TokenTree) -> None:
    tree.root.children[0].num_computed -= 1


def misplace_a_child(tree: TokenTree) -> None:
    tree.root.children[0].children[0].start += 1


def swap_a_parent(tree: TokenTree) -> None:
    tree.root.children[0].children[0].parent = tree.root


def miscount_evictable(tree: TokenTree) -> None:
    tree.pool.num_evictable += 1


def miscount_reserved(tree: TokenTree) -> None:
    tree.pool.num_reserved -= 1


def forget_a_reservation(tree: TokenTree) -> None:
    tree.pool.reserving.clear()


def forget_a_cached_leaf(tree: TokenTree) -> None:
    tree.pool.queue.pop()


def hide_a_published_node(tree: TokenTree) -> None:
    next(n for n in tree.root.children if n.ref == 0).published = False


def change_a_first_token(tree: TokenTree) -> None:
    tree.root.children[0].tokens[0] += 1


DAMAGE = [
    lose_a_slot,
    own_a_slot_twice,
    drop_a_reference,
    forget_a_cursor,
    register_a_stranger,
    point_outside_the_tree,
    compute_more_than_slots,
    compute_below_a_pending_parent,
    misplace_a_child,
    swap_a_parent,
    miscount_evictable,
    miscount_reserved,
    forget_a_reservation,
    forget_a_cached_leaf,
    hide_a_published_node,
    change_a_first_token,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_seen(make_tree, damage: Callable[[TokenTree], None]):
    tree = make_tree(128, reserve=8)
    trunk = tree.opened(PROMPT)
    twin = tree.fork(trunk)
    tree.grow(trunk, [1])
    tree.grow(twin, [2])
    tree.cached([5, 6, 7])
    tree.check_integrity()
    damage(tree)
    with pytest.raises(IntegrityError):
        tree.check_integrity()
