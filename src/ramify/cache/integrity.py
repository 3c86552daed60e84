"""What must hold between any two calls of the token tree, checked from scratch.

Every slot is free, reserved or owned by exactly one node; reference counts equal live paths; the
incremental counters equal a recount. Linear in nodes and slots: for tests and idle moments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import pairwise

import numpy as np

from ramify.cache.lru import is_evictable_leaf
from ramify.cache.node import Cursor, Node
from ramify.cache.pool import NodePool
from ramify.cache.slots import num_slots_in
from ramify.core.errors import IntegrityError, expected_got


def check_tree(root: Node, cursors: Collection[Cursor], pool: NodePool) -> None:
    """Raise IntegrityError on the first invariant that does not hold."""
    nodes = list(_walk(root))
    for node in nodes:
        _check_links(node)
        _check_tokens(node, root)
    _check_paths(nodes, root, cursors)
    _check_slots(nodes, pool)
    _check_counters(nodes, pool)


def _expect(name: str, expected: object, got: object) -> None:
    if expected != got:
        raise IntegrityError(expected_got(name, expected, got))


def _walk(root: Node) -> Iterator[Node]:
    """All nodes below the hidden root, parents first."""
    stack = list(root.children)
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children)


def _check_links(node: Node) -> None:
    assert node.parent is not None, "a walked node has a parent"
    for child in node.children:
        if child.parent is not node:
            raise IntegrityError(f"{child} hangs below {node} but names {child.parent} its parent")
        _expect(f"start of {child}", node.end, child.start)
    siblings = node.parent.children_by_token(node.tokens[0] if node.tokens else -1)
    _expect(f"entries of {node} in its parent's index", 1, siblings.count(node))


def _check_tokens(node: Node, root: Node) -> None:
    """Order of computed <= slots <= tokens, and computed nodes only below computed ones."""
    if not 0 <= node.num_computed <= node.num_slots <= len(node.tokens) or not node.tokens:
        raise IntegrityError(f"expected 0 <= computed <= slots <= tokens >= 1, got {node}")
    assert node.parent is not None, "a walked node has a parent"
    if node.num_computed and not node.parent.is_computed:
        raise IntegrityError(f"{node} is computed below {node.parent}, which is not")
    if node.published and not (node.is_computed and (node.parent.published or node.parent is root)):
        raise IntegrityError(f"{node} is published but its path is not all computed and published")
    if node.ref == 0 and (not node.published or node.reserved or node.lent):
        raise IntegrityError(f"{node} has no live path but is not plain prefix cache")


def _check_paths(nodes: list[Node], root: Node, cursors: Collection[Cursor]) -> None:
    refs: Counter[Node] = Counter()
    for cursor in cursors:
        refs.update(cursor.node.ancestors())
        if cursor not in cursor.node.cursors:
            raise IntegrityError(f"{cursor} is not registered at its node")
        if not cursor.is_open and not cursor.pins:
            raise IntegrityError(f"{cursor} is closed and unpinned but still registered")
    for node in nodes:
        _expect(f"ref of {node}", refs[node], node.ref)
    _expect("nodes on live paths that are in the tree", len(refs), len(refs.keys() & set(nodes)))
    registered = sum(len(node.cursors) for node in [root, *nodes])
    _expect("cursors registered at nodes", len(cursors), registered)


def _check_slots(nodes: list[Node], pool: NodePool) -> None:
    """Every slot has exactly one owner: the free list, a reservation, a loan or a node."""
    free = pool.allocator.free_extents()
    owners = np.zeros(pool.allocator.num_slots, dtype=np.int64)
    held = (e for node in nodes for e in (node.extents, node.reserved, node.lent))
    for extents in [free, *held]:
        for begin, end in extents:
            if not 0 <= begin < end <= len(owners):
                raise IntegrityError(f"extent [{begin}, {end}) is empty or outside the pool")
            owners[begin:end] += 1
    wrong = np.flatnonzero(owners != 1)
    if len(wrong):
        raise IntegrityError(
            f"slot {wrong[0]} (one of {len(wrong)}): expected one owner, got {owners[wrong[0]]}"
        )
    for left, right in pairwise(free):
        if left.end == right.begin:
            raise IntegrityError(f"free extents {left} and {right} touch but did not coalesce")


def _check_counters(nodes: list[Node], pool: NodePool) -> None:
    free = num_slots_in(pool.allocator.free_extents())
    _expect("num_free", free, pool.num_free)
    _expect("num_reserved", sum(num_slots_in(n.reserved) for n in nodes), pool.num_reserved)
    evictable = sum(node.num_slots for node in nodes if node.ref == 0)
    _expect("num_evictable", evictable, pool.num_evictable)
    _expect("nodes with a reservation", {n for n in nodes if n.reserved}, set(pool.reserving))
    queued = set(pool.queue.nodes())
    for node in nodes:
        if is_evictable_leaf(node) and node not in queued:
            raise IntegrityError(f"{node} can be evicted but is not queued")
        _expect(f"queued flag of {node}", node in queued, node.queued)
