"""Fronts grown as arrays against the same fronts grown in a token tree, snapshot by snapshot."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ramify.cache import Cursor, TokenTree, build_forest, tips_of
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
    for i, tip in enumerate(grown):
        tree.append(tip, [token + i])
    return grown


def step(
    tree: TokenTree, tips: list[Cursor], branch: np.ndarray, kept: np.ndarray, token: int
) -> list[Cursor]:
    """One step in arrays, then in the tree with the same slots; both must have one forest."""
    front = tips_of(tips)
    assert front is not None, "every tip is a computed node of its own"
    lacks = front.lacks_slot(branch)
    lines = tree.claim_lines(int(lacks.sum()))
    slots = front.next_slot[branch]
    slots[lacks] = lines.begin
    growth = front.grown(branch, slots, kept)
    forest = growth.forest
    grown = grow(tree, tips, branch, kept, token)
    tree.lay(grown, lacks, lines)
    assert [tree.slot_of(tip.node, tip.offset - 1) for tip in grown] == slots.tolist()
    forest.validate()
    assert_same(forest, build_forest([(tip.node, tip.offset) for tip in grown]))
    return grown


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
    for token in range(0, 2000, 50):
        # a few parents of many, or everybody of one
        parents = width if rng.random() < 0.5 else rng.integers(1, width + 1)
        branch = rng.permutation(width)[:parents][rng.integers(0, parents, len(tips))]
        branch = np.arange(width) if rng.random() < 0.4 else branch
        kept = rng.random(width) < rng.choice([0.0, 0.3])
        grown = step(tree, tips, branch, kept, token)
        held += [tip for tip, stays in zip(tips, kept, strict=True) if stays]
        dead = [t for t, stays in zip(tips, kept, strict=True) if not stays and t not in grown]
        tree.prune(dead + held[:-5])
        held, tips = held[-5:], grown
        tree.check_integrity()
    tree.prune([*tips, *held, root])
    tree.check_integrity()
    assert tree.num_free == num_slots


def test_a_front_may_shrink(make_tree) -> None:
    tree = make_tree(400)
    tips = tree.fork_all([tree.opened(PROMPT)] * 4)
    for token, tip in enumerate(tips):
        tree.grow(tip, [token])
    grown = step(tree, tips, np.array([2, 0]), np.zeros(4, dtype=bool), 50)
    assert grown == [tips[2], tips[0]]


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
