"""Row tiles against every other cut; plans of a changing tree against plans from scratch."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import HeadShape, build_plan
from ramify.attention.plan.cost import CostTable, Tuning
from ramify.attention.plan.fused import row_tiles
from ramify.attention.plan.pieces import visible
from ramify.attention.plan.schedule import make_schedule
from ramify.attention.plan.spans import STEP
from ramify.attention.reference import visibility_ref
from ramify.bench.attention.growing_tree import GrowingTree
from ramify.core.forest import Forest
from ramify.testing.trees import RandomForestSpec, random_forest

HEADS = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)


def seen_by_rows(forest: Forest) -> np.ndarray:
    """[Q, tokens] whether an ordered row sees a token, by the reference's walk over ancestors."""
    return visibility_ref(forest)[1].numpy()[forest.row_order]


def cost_of_tile(seen: np.ndarray, begin: int, end: int, costs: CostTable) -> float:
    """Microseconds of a tile beyond what any cut pays: a unit, what the next re-reads, masks."""
    us = costs.unit_us
    if end < len(seen):
        us += (seen[end - 1] & seen[end]).sum() * costs.reread_us / STEP
    if end - begin > 1:
        private = seen[begin:end] & (seen.sum(axis=0) == 1)
        us += private.sum() * costs.masked_part * costs.step_us / STEP
    return us


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spec=st.builds(
        RandomForestSpec,
        num_roots=st.integers(1, 4),
        max_depth=st.integers(1, 8),
        max_fan_out=st.sampled_from([1, 3, 30]),
        max_nodes=st.integers(3, 50),
        max_length=st.sampled_from([1, 12, 400]),
        num_rows=st.sampled_from([1, 2, 9, 60]),
    ),
    most=st.integers(1, 40),
    # powers of two: sums in any order are exact, so equal costs are equal
    costs=st.sampled_from(
        [
            CostTable(reread_us=0.75, step_us=1.0, masked_part=0.0625),
            CostTable(reread_us=4.0, step_us=1.0, masked_part=0.0, unit_us=0.0),
            CostTable(reread_us=0.25, step_us=2.0, masked_part=1.0, unit_us=0.125),
        ]
    ),
    is_fixed=st.booleans(),
)
def test_no_cut_into_tiles_costs_less(
    seed: int, spec: RandomForestSpec, most: int, costs: CostTable, is_fixed: bool
) -> None:
    """The least over all cuts, by the plain recursion over where the last tile begins."""
    forest = random_forest(seed, spec).forest
    # tiles are weighed as if whoever sees some of a node saw all of it
    forest = replace(forest, query_len=forest.length[forest.query_node])
    seen = seen_by_rows(forest)
    # strangers are parted by a rule of thumb where cuts are not fixed
    is_fixed = is_fixed or not (seen[1:] & seen[:-1]).any(axis=1).all()
    tuning = Tuning(costs=costs, fixed_cuts=64 if is_fixed else None)
    edges = row_tiles(forest, visible(forest), most, tuning).edges.tolist()
    walls = set(forest.row_lo[forest.parent < 0].tolist()) if is_fixed else set()
    least = [0.0]
    for end in range(1, forest.num_rows + 1):
        ways = []
        for begin in range(end - 1, max(end - most, 0) - 1, -1):
            ways.append(least[begin] + cost_of_tile(seen, begin, end, costs))
            if begin in walls:
                break
        least.append(min(ways))
    assert edges[0] == 0 and edges[-1] == forest.num_rows
    assert all(1 <= end - begin <= most for begin, end in pairwise(edges))
    assert walls.intersection(range(forest.num_rows)) <= set(edges)
    assert sum(cost_of_tile(seen, *tile, costs) for tile in pairwise(edges)) == least[-1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_rows=st.sampled_from([1, 20, 200]))
def test_pieces_name_the_rows_that_see_them(seed: int, num_rows: int) -> None:
    case = random_forest(seed, RandomForestSpec(num_rows=num_rows, max_length=20))
    slots, seen = visibility_ref(case.forest)
    rows_of = dict(zip(slots.tolist(), seen.numpy()[case.forest.row_order].T, strict=True))
    found = visible(case.forest)
    columns = (found.pieces.slot, found.pieces.length, found.position, found.lo, found.hi)
    listed = []
    for slot, length, position, lo, hi in zip(*(c.tolist() for c in columns), strict=True):
        rows = np.flatnonzero(rows_of[slot])
        assert (lo, hi) == (rows[0], rows[-1] + 1) and len(rows) == hi - lo
        for token in range(length):
            listed.append(slot + token)
            # of the piece's rows, those that end at the token or after it
            ends = case.forest.ordered_position[lo:hi] >= position + token
            assert (rows_of[slot + token][lo:hi] == ends).all()
    assert sorted(listed) == sorted(slot for slot, rows in rows_of.items() if rows.any())


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("method", ["fused", "lean", "flatten"])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    branches=st.integers(1, 200),
    edits=st.lists(st.sampled_from(["append", "fork", "prune", "change"]), max_size=12),
)
def test_a_plan_is_that_of_its_forest_whatever_was_planned_before(
    method: str, seed: int, branches: int, edits: list[str]
) -> None:
    """Every step of a tree's life, planned again backwards: the same arrays, to the bit."""
    tree = GrowingTree(branches, prompt=300, seed=seed)
    tuning = Tuning(num_workers=7)
    steps = []
    for edit in ("append", *edits):
        tree.change(5) if edit == "change" else getattr(tree, edit)()
        forest = tree.forest()
        plan = build_plan(forest, method, heads=HEADS, tuning=tuning)
        steps.append((forest, plan, make_schedule(plan, HEADS.group, 7)))
    for forest, plan, schedule in reversed(steps):
        again = build_plan(replace(forest), method, heads=HEADS, tuning=tuning)
        for field in fields(plan):
            assert same(getattr(plan, field.name), getattr(again, field.name)), field.name
        for name, value in make_schedule(again, HEADS.group, 7)._asdict().items():
            assert same(value, getattr(schedule, name)), name
