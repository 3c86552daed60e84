"""Work lists: units cover every visible pair once, in tiles that hold them, within a capacity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, HeadShape, build_plan
from ramify.attention.backends.plan_buffer import Capacity, PlanBuffer, unit_name
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.work import TILES, WorkList, make_work
from ramify.attention.reference import visibility_ref
from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.testing.trees import RandomForestSpec, TreeCase, few_shot, random_forest

HEADS = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)


def covered(work: WorkList, num_slots: int) -> np.ndarray:
    """Count [Q, slots] of the user's rows, from the int32 arrays by the kernel's own rules."""
    order, position, _ = work.rows
    pairs = np.zeros((len(order), num_slots), dtype=np.int64)
    for units in work.units.values():
        for row0, rows, piece_begin, piece_end, begin, end, _, _ in units:
            row = np.arange(row0, row0 + rows)
            for slot, length, lo, hi, first, _, _, _ in work.pieces[piece_begin:piece_end]:
                for token in range(length):
                    sees = (lo <= row) & (row < hi) & (first + token <= position[row])
                    pairs[order[row[sees]], slot + token] += 1
            for slot, lo, hi, _ in work.tokens[:, begin:end].T:
                pairs[order[row[(lo <= row) & (row < hi)]], slot] += 1
    return pairs


def expected(case: TreeCase) -> np.ndarray:
    slots, visible = visibility_ref(case.forest)
    pairs = np.zeros((case.forest.num_rows, case.num_slots), dtype=np.int64)
    pairs[:, slots.numpy()] = visible.numpy()
    return pairs


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    max_length=st.sampled_from([1, 20, 200]),
    num_rows=st.sampled_from([1, 20, 150]),
    group=st.sampled_from([1, 3, 4, 16]),
)
def test_every_visible_pair_is_computed_once(
    method: str, seed: int, max_length: int, num_rows: int, group: int
) -> None:
    spec = RandomForestSpec(max_length=max_length, num_rows=num_rows, max_nodes=25)
    case = random_forest(seed, spec)
    heads = HeadShape(num_q_heads=group, num_kv_heads=1, head_dim=64, itemsize=2)
    tuning = Tuning(num_workers=4, packed_rows=64)
    plan = build_plan(case.forest, method, heads=heads, tuning=tuning)
    work = make_work(plan, case.forest, group, wide_rows=96)
    np.testing.assert_array_equal(covered(work, case.num_slots), expected(case))
    for tile, units in work.units.items():
        assert (units[:, 1] * group <= tile).all() and (units[:, 1] > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_partial_slots_are_the_plans(method: str) -> None:
    """Each row's slots, as units write them, are exactly its merge list."""
    case = random_forest(4, RandomForestSpec(num_rows=60, max_length=100))
    work = make_work(build_plan(case.forest, method), case.forest, 4)
    written: dict[int, list[int]] = {}
    for units in work.units.values():
        for row0, rows, _, _, _, _, slot, kinds in units:
            alone = work.rows[2, row0 : row0 + rows] == 1
            assert kinds == alone.any() + 2 * (~alone).any()
            for step in range(rows):
                written.setdefault(int(row0 + step), []).append(int(slot + step))
    for row in range(case.forest.num_rows):
        merged = work.merge_slots[work.merge_indptr[row] : work.merge_indptr[row + 1]]
        assert sorted(written.get(row, [])) == sorted(merged.tolist())
        assert work.rows[2, row] == len(merged)


def test_long_runs_stay_spans_and_short_ones_are_gathered() -> None:
    case = few_shot(branches=16, prompt=2000, generated=20)
    work = make_work(build_plan(case.forest, "fused", heads=HEADS), case.forest, HEADS.group)
    assert work.tokens.shape[1] == 16 * 20
    assert work.pieces[:, 1].sum() == 2000
    # costly units come first
    for units in work.units.values():
        spans = [sum(work.pieces[unit[2] : unit[3], 1]) for unit in units]
        cost = np.array(spans) + units[:, 5] - units[:, 4]
        assert (np.diff(cost) <= 0).all()


def test_fused_bundles_small_nodes_and_separates_large_ones() -> None:
    levels = [16] * 8
    parent = [-1] + [(node - 1) // 2 for node in range(1, 255)]
    begin = [16 * node for node in range(255)]
    deep = Forest.from_nodes(parent, [16] * 255, begin, range(127, 255))
    plan = build_plan(deep, "fused", heads=HEADS)
    # lists of four workers: cut in two or three places, where node by node is one per level
    assert plan.partials_per_row.max() <= len(levels) // 2
    assert build_plan(deep, "node").partials_per_row.max() == len(levels)
    prompt = build_plan(few_shot(32, 4000, 200).forest, "fused", heads=HEADS)
    assert prompt.read_tokens == prompt.unique_tokens


def test_a_buffer_grows_until_it_is_reserved() -> None:
    forest = few_shot(branches=100, prompt=300, generated=20).forest
    work = make_work(build_plan(forest, "fused", heads=HEADS), forest, HEADS.group)
    buffer = PlanBuffer(torch.device("cpu"))
    buffer.upload(work)
    assert buffer.capacity.rows == 128
    for tile in TILES:
        units = buffer.on_device[unit_name(tile)].numpy()
        np.testing.assert_array_equal(units[: len(work.units[tile])], work.units[tile])
        assert not units[len(work.units[tile]) :, 7].any()
    np.testing.assert_array_equal(
        buffer.on_device["tokens"].numpy()[:, : work.tokens.shape[1]], work.tokens
    )
    buffer.reserve(replace(Capacity.of(work), pieces=8))
    address = buffer.on_device["rows"].data_ptr()
    buffer.upload(work)
    small = few_shot(branches=3, prompt=30, generated=5).forest
    buffer.upload(make_work(build_plan(small, "node"), small, HEADS.group))
    assert buffer.on_device["header"][0] == 3 and buffer.on_device["rows"].data_ptr() == address
    large = few_shot(branches=101, prompt=300, generated=20).forest
    with pytest.raises(InputError, match=r"plan: expected at most Capacity\(rows=100"):
        buffer.upload(make_work(build_plan(large, "node"), large, HEADS.group))
