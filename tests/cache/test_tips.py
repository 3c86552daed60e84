"""Fronts grown as arrays against the same fronts grown in a token tree, snapshot by snapshot."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ramify.cache import Cursor, Growth, Tips, TokenTree, build_forest, tips_of
from ramify.core.forest import Forest

PROMPT = list(range(100, 120))


def assert_same(found: Forest, wanted: Forest) -> None:
    for field in fields(Forest):
        left, right = getattr(found, field.name), getattr(wanted, field.name)
        assert left.dtype == right.dtype and np.array_equal(left, right), field.name


def grow(
    tree: TokenTree, tips: list[Cursor], branch: np.ndarray, kept: np.ndarray, token: int
) -> list[Cursor]:
    """The new tips; as the engine edits a tree: a path goes to its first continuation."""
    free = {b: tip for b, tip in enumerate(tips) if not kept[b]}
    taken = [free.pop(b, None) for b in branch.tolist()]
    pairs = zip(branch.tolist(), taken, strict=True)
    forks = iter(tree.fork_all(tips[b] for b, tip in pairs if tip is None))
    grown = [next(forks) if tip is None else tip for tip in taken]
    tree.append_all(grown, range(token, token + len(grown)))
    return grown


def step(
    tree: TokenTree, front: Tips, tips: list[Cursor], branch: np.ndarray, kept: np.ndarray
) -> tuple[Growth, list[Cursor]]:
    """One step in arrays, then in the tree with the same slots; both must have one forest."""
    lacks = front.lacks_slot(branch)
    lines = tree.claim_lines(int(lacks.sum()))
    slots = front.next_slot[branch]
    slots[lacks] = lines.begin
    growth = front.grown(branch, slots, kept)
    grown = grow(tree, tips, branch, kept, 50 * tips[0].length)
    tree.lay(grown, lacks, lines)
    assert [tree.slot_of(tip.node, tip.offset - 1) for tip in grown] == slots.tolist()
    growth.forest.validate()
    assert_same(growth.forest, build_forest([(tip.node, tip.offset) for tip in grown]))
    return growth, grown


def found(tips: list[Cursor]) -> Tips:
    """What a look at the nodes tells of the tips, all of them computed nodes of their own."""
    front = tips_of(tips)
    assert front is not None
    return front


@pytest.mark.parametrize("reserve", [0, 3, 64])
@pytest.mark.parametrize("num_slots", [700, 5000], ids=["tight", "ample"])
@pytest.mark.parametrize("seed", range(3))
def test_arrays_grow_as_the_tree_does(make_tree, reserve: int, num_slots: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = make_tree(num_slots, reserve=reserve)
    root, width = tree.opened(PROMPT), 12
    tips = tree.fork_all([root] * width)
    for token, tip in enumerate(tips):
        tree.grow(tip, [token])
    held: list[Cursor] = []
    front, num_looked = found(tips), 0
    for _ in range(40):
        # a few parents of many, or everybody of one
        parents = width if rng.random() < 0.5 else rng.integers(1, width + 1)
        branch = rng.permutation(width)[:parents][rng.integers(0, parents, len(tips))]
        branch = np.arange(width) if rng.random() < 0.4 else branch
        kept = rng.random(width) < rng.choice([0.0, 0.1, 0.3])
        growth, grown = step(tree, front, tips, branch, kept)
        held += [tip for tip, stays in zip(tips, kept, strict=True) if stays]
        dead = [t for t, stays in zip(tips, kept, strict=True) if not stays and t not in grown]
        let_go, held = (held, []) if len(held) > 6 else ([], held)
        tree.prune([*dead, *let_go])
        tips, looked = grown, found(grown)
        followed = looked if let_go else front.pruned(growth, grown)
        assert_same(followed.forest, looked.forest)
        assert np.array_equal(followed.next_slot, looked.next_slot)
        front, num_looked = followed, num_looked + bool(let_go)
        tree.check_integrity()
    assert 0 < num_looked < 30
    tree.prune([*tips, *held, root])
    tree.check_integrity()
    assert tree.num_free == num_slots


def test_a_front_may_shrink(make_tree) -> None:
    tree = make_tree(400)
    tips = tree.fork_all([tree.opened(PROMPT)] * 4)
    for token, tip in enumerate(tips):
        tree.grow(tip, [token])
    _, grown = step(tree, found(tips), tips, np.array([2, 0]), np.zeros(4, dtype=bool))
    assert grown == [tips[2], tips[0]]


def test_a_node_apart_from_its_child_keeps_no_other_apart(make_tree) -> None:
    """It goes with its child, and the node above then merges with what is left below."""
    tree = make_tree(400, reserve=0)
    root = tree.opened(PROMPT)
    top = tree.fork(root)
    tree.grow(top, [1])
    left, right = tree.fork_all([top, top])
    tree.grow(right, [2])
    tree.grow(left, [3])
    child = tree.fork(left)
    tree.opened([5] * 30)  # takes the slots behind
    tree.grow(child, [4])
    tree.prune([left, top])
    tips = [child, right]
    front = found(tips)
    assert front.forest.num_nodes == 5
    growth, grown = step(tree, front, tips, np.array([1, 1]), np.zeros(2, dtype=bool))
    tree.prune([child])
    assert found(grown).forest.num_nodes == 4
    assert_same(front.pruned(growth, grown).forest, found(grown).forest)


def test_only_computed_nodes_of_one_path_are_tips(make_tree) -> None:
    tree = make_tree(400)
    root = tree.opened(PROMPT)
    assert tips_of([root]) is not None
    twin = tree.fork(root)
    assert tips_of([root]) is None
    tree.append(twin, [1])
    assert tips_of([twin]) is None and tips_of([root]) is None
    tree.compute(twin)
    assert tips_of([twin]) is not None and tips_of([root]) is None
