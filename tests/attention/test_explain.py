"""Predictions: against sets of tokens and sums by hand, and against the units that a GPU walks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, AttentionPlan, HeadShape, TreeAttention, build_plan, explain
from ramify.attention.plan.cost import CostTable, Tuning
from ramify.attention.plan.predict import Prediction, predict
from ramify.attention.plan.schedule import make_schedule
from ramify.core.forest import Forest
from ramify.testing.trees import NAMED, RandomForestSpec, chains, few_shot, named, random_forest

HEADS = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
COSTS = CostTable(
    step_us=8.0,
    reread_us=5.0,
    compute_us=6.0,
    unit_us=2.0,
    partial_us=0.5,
    merge_us=3.0,
    launch_us=10.0,
)


def by_hand(plan: AttentionPlan, heads: HeadShape, tuning: Tuning) -> tuple[float, int, list[int]]:
    """Predicted time, tokens read and worker of every unit, token by token."""
    costs, most = tuning.costs, tuning.packed_rows // heads.group or 1
    seen: set[int] = set()
    load, read, workers = [0.0] * tuning.num_workers, 0, []
    for item in range(plan.num_items):
        begin, end = int(plan.item_lo[item]), int(plan.item_hi[item])
        step = -(-(end - begin) // -(-(end - begin) // most))
        for first in range(begin, end, step):
            last = min(first + step, end)
            is_wide = (last - first) * heads.group * 2 > tuning.packed_rows
            compute = costs.compute_us if is_wide else costs.compute_us / 2
            cost = costs.unit_us
            for piece in range(plan.item_indptr[item], plan.item_indptr[item + 1]):
                if plan.piece_lo[piece] >= last or plan.piece_hi[piece] <= first:
                    continue
                slot = int(plan.piece_slot[piece])
                for token in range(slot, slot + int(plan.piece_len[piece])):
                    price = costs.reread_us if token in seen else costs.step_us
                    cost += max(price, compute) / 64
                    read += 1
                    seen.add(token)
            named_one = -1 if plan.item_worker is None else int(plan.item_worker[item])
            workers.append(named_one if named_one >= 0 else int(np.argmin(load)))
            load[workers[-1]] += cost
    depth = max(plan.partials_per_row.tolist(), default=0)
    merge = costs.merge_us + depth * costs.partial_us if depth > 1 else 0.0
    return costs.launch_us + max(load) + merge, read, workers


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.sampled_from([1, 20, 150]),
    group=st.sampled_from([1, 3, 16]),
    packed_rows=st.sampled_from([16, 64, 128]),
    fixed_cuts=st.sampled_from([None, 64]),
)
def test_workers_are_weighed_token_by_token(
    method: str, seed: int, num_rows: int, group: int, packed_rows: int, fixed_cuts: int | None
) -> None:
    spec = RandomForestSpec(max_length=200, num_rows=num_rows, max_nodes=25)
    heads = HeadShape(num_q_heads=2 * group, num_kv_heads=2, head_dim=64, itemsize=2)
    tuning = Tuning(num_workers=5, packed_rows=packed_rows, fixed_cuts=fixed_cuts, costs=COSTS)
    plan = build_plan(random_forest(seed, spec).forest, method, heads=heads, tuning=tuning)
    found = predict(plan, heads, tuning)
    us, read, workers = by_hand(plan, heads, tuning)
    assert found.us == pytest.approx(us)
    assert found.read_tokens == read
    assert found.unit_worker.tolist() == workers
    report = explain(plan, heads, tuning=tuning)
    assert report.read_tokens - report.reread_tokens == report.unique_tokens
    assert report.kv_bytes_read == read * heads.token_bytes
    assert report.num_tiles == 2 * len(workers)


@pytest.mark.parametrize("shape", NAMED)
@pytest.mark.parametrize("method", METHODS)
def test_units_are_those_that_a_gpu_walks(method: str, shape: str) -> None:
    """With one price for all tokens the load is what plan/schedule.py balances with."""
    costs = replace(COSTS, reread_us=COSTS.step_us, compute_us=0.0)
    tuning = Tuning(num_workers=16, costs=costs)
    plan = build_plan(named(shape).forest, method, heads=HEADS, tuning=tuning)
    found = predict(plan, HEADS, tuning)
    schedule = make_schedule(plan, HEADS.group, tuning.num_workers, costs)
    assert found.read_tokens == schedule.read_tokens
    assert found.busiest_over_mean == pytest.approx(schedule.busiest)
    assert explain(plan, HEADS, tuning=tuning).num_merges == len(schedule.merges)


def test_two_requests_by_hand() -> None:
    """Two chains of 640 tokens on four workers: one unit of five steps each, two partials a row."""
    tuning = Tuning(num_workers=4, costs=COSTS)
    forest = chains(2, 640).forest
    report = explain(build_plan(forest, "lean", tuning=tuning), HEADS, tuning=tuning)
    assert (report.num_workers, report.num_items, report.num_tiles) == (4, 4, 4 * 8)
    assert (report.num_merges, report.most_partials, report.partial_rows) == (2, 2, 4)
    assert report.busiest_over_mean == 1.0
    assert report.predicted_us == 10.0 + (2.0 + 5 * 8.0) + (3.0 + 2 * 0.5)
    assert report.bandwidth_bytes_per_s is None
    whole = explain(build_plan(forest, "node", tuning=tuning), HEADS, tuning=tuning)
    # two workers have nothing to do, and nothing is merged
    assert (whole.busiest_over_mean, whole.num_merges, whole.most_partials) == (2.0, 0, 1)
    assert whole.predicted_us == 10.0 + 2.0 + 10 * 8.0


def test_wide_items_read_again_for_every_row_tile() -> None:
    """80 rows of 4 query heads are three tiles of 128; leaves are narrow, so products cost half."""
    tuning = Tuning(num_workers=1, costs=COSTS)
    forest = few_shot(branches=80, prompt=640, generated=64).forest
    report = explain(build_plan(forest, "node"), HEADS, tuning=tuning)
    assert report.reread_tokens == 2 * 640
    units = 3 * 2.0 + 10 * (8.0 + 2 * 6.0) + 80 * (2.0 + 8.0)
    assert report.predicted_us == 10.0 + units + 3.0 + 2 * 0.5


def test_a_cpu_is_predicted_by_its_bandwidth() -> None:
    report = explain(build_plan(few_shot().forest, "fused"), HEADS, bandwidth_bytes_per_s=1e9)
    assert (report.num_workers, report.busiest_over_mean) == (None, None)
    num_bytes = report.kv_bytes_read + report.partial_bytes
    assert report.predicted_us == pytest.approx(num_bytes / 1e3)
    assert report.bandwidth_bytes_per_s == 1e9


def test_items_name_their_workers() -> None:
    tuning = Tuning(num_workers=7)
    plan = build_plan(few_shot().forest, "fused", heads=HEADS, tuning=tuning)
    assert plan.item_worker is not None
    found = predict(plan, HEADS, tuning)
    items = range(plan.num_items)
    assert [found.workers_of(item) for item in items] == [[int(w)] for w in plan.item_worker]
    wide: Prediction = predict(build_plan(few_shot(80).forest, "node"), HEADS, tuning)
    assert wide.workers_of(0) == [0, 1, 2]


def test_an_empty_plan_costs_a_launch() -> None:
    plan = build_plan(Forest.from_nodes([-1], [3], [0], [0], [0]), "fused")
    report = explain(plan, HEADS, tuning=Tuning(costs=COSTS))
    assert (report.predicted_us, report.busiest_over_mean, report.num_tiles) == (10.0, 1.0, 0)


def test_the_operator_explains_with_its_backends_table() -> None:
    op = TreeAttention(32, 8, 128, method="lean")
    assert op.tuning is None
    forest = few_shot().forest
    op.plan(forest)
    assert op.explain().num_workers is None
    op._backend.tuning = Tuning(num_workers=6, costs=COSTS)  # as a GPU's would be
    plan = op.plan(forest)
    assert op.explain() == explain(plan, op.heads, tuning=op.tuning)
    assert op.explain().num_workers == 6
