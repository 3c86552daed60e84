"""Stream-K cuts: equal shares of the work for every worker, whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import AttentionPlan, HeadShape, build_plan
from ramify.attention.plan.cost import CostTable, Tuning
from ramify.attention.plan.cut import SNAP, STEP
from ramify.core.forest import Forest
from ramify.testing.trees import few_shot

HEADS = HeadShape(num_q_heads=4, num_kv_heads=1, head_dim=64, itemsize=2)
# reads decide, a unit by itself costs nothing
COSTS = CostTable(step_us=1.0, reread_us=0.5, compute_us=0.1, unit_us=0.0, masked_part=0.0)


def load_of_workers(plan: AttentionPlan) -> np.ndarray:
    """Cost of each worker's items by the table, a token being cheaper when another tile read it."""
    assert plan.item_worker is not None
    load = np.zeros(int(plan.item_worker.max()) + 1)
    seen: set[int] = set()
    for item, worker in enumerate(plan.item_worker.tolist()):
        for piece in range(plan.item_indptr[item], plan.item_indptr[item + 1]):
            slot, length = int(plan.piece_slot[piece]), int(plan.piece_len[piece])
            is_again = plan.method == "fused" and slot in seen
            load[worker] += length * (COSTS.reread_us if is_again else COSTS.step_us) / STEP
            seen.update(range(slot, slot + length))
    return load


def check(forest: Forest, method: str, workers: int) -> None:
    tuning = Tuning(num_workers=workers, costs=COSTS)
    plan = build_plan(forest, method, heads=HEADS, tuning=tuning)
    load = load_of_workers(plan)
    assert len(load) <= workers
    if (plan.partials_per_row > 1).any():
        # to the nearest step, or to where a list ends anyway
        assert np.ptp(load) <= COSTS.step_us + 2 * SNAP * load.mean()
    else:
        # whole lists: what the busiest has more than its share costs less than a merge
        assert load.max() <= load.sum() / workers + max(COSTS.merge_us, COSTS.step_us)


@pytest.mark.parametrize("method", ["lean", "fused"])
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6000), min_size=1, max_size=30),
    workers=st.integers(1, 20),
)
def test_ragged_branches(method: str, lengths: list[int], workers: int) -> None:
    begin = np.cumsum(lengths) - lengths
    forest = Forest.from_nodes([-1] * len(lengths), lengths, begin, range(len(lengths)))
    check(forest, method, workers)


@pytest.mark.parametrize("method", ["lean", "fused"])
@settings(max_examples=40, deadline=None)
@given(
    branches=st.integers(1, 150),
    prompt=st.integers(1, 6000),
    generated=st.integers(1, 300),
    workers=st.integers(1, 20),
)
def test_branches_of_one_prompt(
    method: str, branches: int, prompt: int, generated: int, workers: int
) -> None:
    check(few_shot(branches, prompt, generated).forest, method, workers)


def test_one_long_branch_is_cut_in_whole_steps_for_all_workers() -> None:
    one = Forest.from_nodes([-1], [100_000], [0], [0])
    for method in ("lean", "fused"):
        plan = build_plan(one, method, heads=HEADS, tuning=Tuning(num_workers=16))
        assert plan.item_worker is not None and plan.item_worker.tolist() == list(range(16))
        sizes = np.add.reduceat(plan.piece_len, plan.item_indptr[:-1])
        assert sizes.max() - sizes.min() <= STEP and not (sizes[:-1] % STEP).any()
