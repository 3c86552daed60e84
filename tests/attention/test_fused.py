"""Plans of a tree that changes against plans of the same forests by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import AttentionPlan, HeadShape, build_plan
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.schedule import Schedule, make_schedule
from ramify.bench.attention.growing_tree import GrowingTree

HEADS = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def public(thing: AttentionPlan | Schedule) -> list[str]:
    """Names of what can be compared: not the memory in which tables and arrays lie."""
    memory = ("parts", "ints", "begin", "count", "index")
    return [name for name in dir(thing) if not name.startswith("_") and name not in memory]


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
        for name in public(plan):
            assert same(getattr(plan, name), getattr(again, name)), name
        new = make_schedule(again, HEADS.group, 7)
        for name in public(schedule):
            assert same(getattr(schedule, name), getattr(new, name)), name
