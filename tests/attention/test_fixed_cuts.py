"""Fixed cuts: what is computed for a tree, and in which order, does not depend on other trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, HeadShape, build_plan
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.schedule import Schedule, make_schedule
from ramify.core.forest import Forest
from ramify.testing.trees import RandomForestSpec, chains, few_shot, random_forest


def among(trees: list[Forest], order: list[int]) -> tuple[Forest, dict[int, tuple[int, int]]]:
    """Trees side by side, each with its own slots; the (first row, first slot) of each."""
    parent, length, begin, rows, seen = [], [], [], [], []
    firsts = {}
    for index in order:
        tree = trees[index]
        slot = 1 + sum(int(trees[other].length.sum()) + 7 for other in order[: order.index(index)])
        firsts[index] = (len(rows), slot)
        rows += (tree.query_node + len(parent)).tolist()
        seen += tree.query_len.tolist()
        begin += (slot + np.cumsum(tree.length) - tree.length).tolist()
        parent += np.where(tree.parent < 0, -1, tree.parent + len(length)).tolist()
        length += tree.length.tolist()
    return Forest.from_nodes(parent, length, begin, rows, seen), firsts


def results_of(schedule: Schedule, first_row: int, num_rows: int, slot: int) -> list[list[tuple]]:
    """For every row of a tree, in the user's order, the units behind it in the order of its merge.

    Rows count from the tree's first, slots from its first; places in the workspace are left out.
    """
    users = range(first_row, first_row + num_rows)
    base = min(row for row, user in enumerate(schedule.user_row.tolist()) if user in users)
    single: dict[int, tuple] = {}
    partial: dict[int, tuple] = {}  # by slot of the workspace
    for row0, rows, begin, end, tokens, opened, slot0, flags in schedule.units[:, :8].tolist():
        pieces = tuple(
            (s - slot, length, lo - base, hi - base, position, kind)
            for s, length, lo, hi, position, kind, _, _ in schedule.pieces[begin:end].tolist()
        )
        unit = (row0 - base, rows, tokens, opened, flags, pieces)
        for step in range(rows):
            if schedule.row_units[row0 + step] > 1:
                partial[slot0 + step] = unit
            else:
                single[int(schedule.user_row[row0 + step])] = unit
    merged = {
        user: [partial[place] for place in schedule.merge_slots[first:last].tolist()]
        for user, first, last, *_ in schedule.merges.tolist()
    }
    return [merged.get(user) or [single[user]] for user in users]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "flatten"])
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(["random", "even", "chain"]), min_size=2, max_size=6),
    group=st.sampled_from([1, 4, 7]),
    cuts=st.sampled_from([64, 100, 1000]),
    workers=st.integers(1, 20),
)
def test_with_fixed_cuts_the_units_of_a_tree_ignore_its_neighbours(
    method: str, seed: int, kinds: list[str], group: int, cuts: int, workers: int
) -> None:
    rng = np.random.default_rng(seed)
    trees = [tree_of(kind, rng) for kind in kinds]
    tuning = Tuning(num_workers=workers, fixed_cuts=cuts)
    heads = HeadShape(num_q_heads=group, num_kv_heads=1, head_dim=64, itemsize=2)
    results = []
    for order in ([0], rng.permutation(len(trees)).tolist()):
        forest, firsts = among(trees, order)
        plan = build_plan(forest, method, heads=heads, tuning=tuning)
        schedule = make_schedule(plan, group, workers)
        first_row, slot = firsts[0]
        results.append(results_of(schedule, first_row, trees[0].num_rows, slot))
    assert results[0] == results[1]


def tree_of(kind: str, rng: np.random.Generator) -> Forest:
    """One tree: of many costs, of equal costs (ties between tiles), or a plain request."""
    if kind == "random":
        spec = RandomForestSpec(num_roots=1, max_nodes=15, max_length=200, num_rows=40)
        return random_forest(int(rng.integers(2**32)), spec).forest
    if kind == "even":
        branches = int(rng.integers(1, 80))
        return few_shot(branches, int(rng.integers(1, 500)), int(rng.integers(1, 60))).forest
    return chains(1, int(rng.integers(1, 3000))).forest
