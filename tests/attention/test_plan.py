"""Plans: every visible (row, token) pair once, bytes as counted by hand, merge lists that merge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, AttentionPlan, HeadShape, build_plan, choose_method, explain
from ramify.attention.plan.cost import CostTable, Tuning
from ramify.attention.plan.per_branch import plan_per_branch
from ramify.attention.reference import merge_partials_ref, tree_attention_ref, visibility_ref
from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.testing.inputs import make_inputs
from ramify.testing.trees import (
    NAMED,
    RandomForestSpec,
    beam,
    chains,
    few_shot,
    named,
    prefill,
    random_forest,
)

HEADS = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
SHAPES = st.builds(
    RandomForestSpec,
    num_roots=st.integers(1, 6),
    max_depth=st.integers(1, 20),
    max_fan_out=st.sampled_from([1, 2, 6, 64]),
    max_nodes=st.integers(6, 80),
    max_length=st.sampled_from([1, 9, 60]),
    num_rows=st.sampled_from([1, 5, 60, 300, 1024]),
)


TUNINGS = st.builds(
    Tuning,
    num_workers=st.integers(1, 20),
    packed_rows=st.sampled_from([16, 32, 64, 128]),
    fixed_cuts=st.sampled_from([None, None, 64, 100]),
    costs=st.sampled_from(
        [
            CostTable(),
            CostTable(unit_us=0.0, partial_us=0.0, merge_us=0.0),
            CostTable(reread_us=3.0, unit_us=0.3, partial_us=1.0, merge_us=0.1),
        ]
    ),
)


def heads_of(group: int) -> HeadShape:
    return HeadShape(num_q_heads=2 * group, num_kv_heads=2, head_dim=64, itemsize=2)


def visible_pairs(forest: Forest, num_slots: int) -> np.ndarray:
    """Count [Q, slots] of the user's rows, from the reference's walk over ancestors."""
    slots, visible = visibility_ref(forest)
    pairs = np.zeros((forest.num_rows, num_slots), dtype=np.int64)
    pairs[:, slots.numpy()] = visible.numpy()
    return pairs


def item_cells(plan: AttentionPlan, item: int) -> list[tuple[int, np.ndarray]]:
    """(slot, ordered rows that see it) for every token of an item, spelled out."""
    cells = []
    for piece in range(plan.item_indptr[item], plan.item_indptr[item + 1]):
        rows = np.arange(plan.piece_lo[piece], plan.piece_hi[piece])
        for token in range(plan.piece_len[piece]):
            sees = plan.row_position[rows] >= plan.piece_position[piece] + token
            cells.append((int(plan.piece_slot[piece]) + token, rows[sees]))
    return cells


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spec=SHAPES,
    group=st.sampled_from([1, 3, 4, 7, 16]),
    tuning=st.none() | TUNINGS,
)
def test_every_visible_pair_is_covered_exactly_once(
    method: str, seed: int, spec: RandomForestSpec, group: int, tuning: Tuning | None
) -> None:
    case = random_forest(seed, spec)
    plan = build_plan(case.forest, method, heads=heads_of(group), tuning=tuning)
    covered = np.zeros((plan.num_rows, case.num_slots), dtype=np.int64)
    for item in range(plan.num_items):
        for slot, rows in item_cells(plan, item):
            assert len(rows), "a token that no row sees is not worth reading"
            assert plan.item_lo[item] <= rows[0] and rows[-1] < plan.item_hi[item]
            covered[plan.row_order[rows], slot] += 1
    np.testing.assert_array_equal(covered, visible_pairs(case.forest, case.num_slots))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spec=SHAPES, tuning=st.none() | TUNINGS)
def test_reads_and_partials_as_counted(
    seed: int, spec: RandomForestSpec, tuning: Tuning | None
) -> None:
    case = random_forest(seed, spec)
    forest = case.forest
    pairs = visible_pairs(forest, case.num_slots)
    alone = sum(
        pairs[forest.query_node == node].any(axis=0).sum() for node in set(forest.query_node)
    )
    for method in METHODS:
        plan = build_plan(forest, method, heads=heads_of(4), tuning=tuning)
        assert plan.unique_tokens == pairs.any(axis=0).sum()
        assert plan.path_tokens == pairs.sum()
        assert plan.per_branch_tokens == alone
        if method == "fused":  # a row tile reads what its rows see, whatever other tiles read
            most = max(1, (tuning or Tuning()).packed_rows // 4)
            assert (plan.item_hi - plan.item_lo <= most).all()
            assert plan.unique_tokens <= plan.read_tokens <= plan.path_tokens
        else:
            shares = method not in ("per_branch", "lean")
            assert plan.read_tokens == (plan.unique_tokens if shares else alone)
            assert plan.read_tokens <= plan.per_branch_tokens
        count = np.zeros(plan.num_rows, dtype=np.int64)
        for lo, hi in zip(plan.item_lo, plan.item_hi, strict=True):
            count[lo:hi] += 1
        np.testing.assert_array_equal(plan.partials_per_row, count)
        assert plan.partial_rows == count[count > 1].sum()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spec=SHAPES,
    group=st.sampled_from([1, 3, 4, 7, 16]),
    tuning=st.none() | TUNINGS,
)
def test_with_a_row_per_node_nothing_reads_more_than_branch_by_branch(
    seed: int, spec: RandomForestSpec, group: int, tuning: Tuning | None
) -> None:
    """Decoding: the promise of the whole design, method by method and for any tuning."""
    case = random_forest(seed, spec)
    nodes = np.unique(case.forest.query_node)
    # every second forest has rows that do not see the end of their node
    seen = np.maximum(case.forest.length[nodes] - seed % 2 * (nodes % 3), 0)
    forest = replace(case.forest, query_node=nodes, query_len=seen)
    for method in METHODS:
        plan = build_plan(forest, method, heads=heads_of(group), tuning=tuning)
        assert plan.unique_tokens <= plan.read_tokens <= plan.per_branch_tokens
        assert plan.per_branch_tokens == plan.path_tokens


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spec=SHAPES, block=st.sampled_from([1, 7, 128]))
def test_flatten_blocks_are_equal_but_the_last(
    seed: int, spec: RandomForestSpec, block: int
) -> None:
    plan = build_plan(random_forest(seed, spec).forest, "flatten", block_tokens=block)
    if plan.num_items == 0:
        return
    tokens = np.add.reduceat(plan.piece_len, plan.item_indptr[:-1])
    assert (tokens[:-1] == block).all()
    assert 1 <= tokens[-1] <= block
    assert plan.num_items == -(-plan.unique_tokens // block)


def test_flatten_blocks_hold_128_tokens_by_default() -> None:
    plan = build_plan(few_shot().forest, "flatten")
    tokens = np.add.reduceat(plan.piece_len, plan.item_indptr[:-1])
    assert set(tokens[:-1].tolist()) == {128}


def test_node_and_node_chunk_keep_to_their_nodes() -> None:
    forest = few_shot(branches=3, prompt=300, generated=40).forest
    assert build_plan(forest, "node").num_items == 4
    chunked = build_plan(forest, "node_chunk", block_tokens=128)
    assert chunked.piece_len.tolist() == [128, 128, 44, 40, 40, 40]
    assert chunked.num_items == 6
    # two runs of one node inside one block are one item
    split = Forest.from_nodes([-1], [100], None, [0], runs=[[(0, 50), (60, 50)]])
    assert build_plan(split, "node_chunk").num_items == 1
    assert build_plan(split, "node").num_items == 2


def test_per_branch_shares_nothing_but_the_chunk_of_one_node() -> None:
    plan = build_plan(few_shot(branches=16, prompt=2000, generated=64).forest, "per_branch")
    assert (plan.num_items, plan.read_tokens) == (16, 16 * 2064)
    assert plan.partial_rows == 0
    chunk = build_plan(prefill(prompt=512, chunk=128).forest, "per_branch")
    assert (chunk.num_items, chunk.read_tokens) == (1, 512)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_merge_lists_give_the_attention_of_the_forest(method: str, seed: int) -> None:
    """Partials computed item by item in fp64 and merged by the plan's lists equal the reference."""
    case = random_forest(seed, RandomForestSpec(num_rows=30))
    plan = build_plan(case.forest, method, block_tokens=16)
    x = make_inputs(case, seed=seed).to(torch.float64)
    out = torch.full((int(plan.partial_begin[-1]), 4, 64), torch.nan, dtype=torch.float64)
    lse = torch.full((len(out), 4), -torch.inf, dtype=torch.float64)
    for item in range(plan.num_items):
        seen: dict[int, list[int]] = {}
        for slot, rows in item_cells(plan, item):
            for row in rows.tolist():
                seen.setdefault(row, []).append(slot)
        for row, slots in seen.items():
            place = int(plan.partial_begin[item]) + row - int(plan.item_lo[item])
            alone = Forest.from_nodes(
                [-1], [len(slots)], None, [0], runs=[[(slot, 1) for slot in slots]]
            )
            q = x.q[plan.row_order[row]][None]
            out[place], lse[place] = (y[0] for y in tree_attention_ref(q, x.k, x.v, alone))
    indptr, slots = plan.merge_lists
    merged = merge_partials_ref(out[slots], lse[slots], torch.from_numpy(indptr))
    exact = tree_attention_ref(x.q, x.k, x.v, case.forest)
    order = torch.from_numpy(plan.row_order)
    torch.testing.assert_close(merged[0], exact[0][order])
    torch.testing.assert_close(merged[1], exact[1][order])


def test_fixed_cuts_of_per_branch_ignore_other_paths() -> None:
    long = Forest.from_nodes([-1, 0, -1], [1000, 70, 5], [0, 1000, 1100], [1, 2])
    plan = build_plan(long, "per_branch", tuning=Tuning(num_workers=7, fixed_cuts=400))
    assert plan.item_indptr.tolist() == [0, 1, 2, 4, 5]
    assert plan.piece_len.tolist() == [400, 400, 200, 70, 5]


def test_plans_grow_where_every_row_ends_a_leaf_of_its_own() -> None:
    leaves = ([-1, 0, 0], [9, 2, 3], [0, 10, 20])
    grows = {
        True: [([1, 2], [2, 3]), ([2], [3]), ([], [])],
        False: [
            ([1, 2], [1, 3]),  # a row before its node's end
            ([1, 1], [2, 2]),  # two rows at one node
            ([0, 1], [9, 2]),  # rows below a row
        ],
    }
    for can_grow, rows in grows.items():
        for query_node, query_len in rows:
            forest = Forest.from_nodes(*leaves, query_node, query_len)
            for method in METHODS:
                plan = build_plan(forest, method)
                assert plan.can_grow == can_grow
                if can_grow:
                    ends = plan.piece_slot[plan.piece_open] + plan.piece_len[plan.piece_open]
                    last = {1: 12, 2: 23}
                    assert sorted(ends.tolist()) == sorted(last[node] for node in query_node)
    empty_leaf = Forest.from_nodes([-1, 0], [9, 0], [0, 10], [1])
    assert not build_plan(empty_leaf, "fused").can_grow


def test_causal_pieces_are_those_that_hide_something() -> None:
    assert not build_plan(few_shot().forest, "node").piece_causal.any()
    assert build_plan(prefill().forest, "node").piece_causal.all()
    blocks = build_plan(prefill(prompt=512, chunk=128).forest, "flatten").piece_causal
    assert blocks.tolist() == [False, False, False, True]


@pytest.mark.parametrize("name", NAMED)
def test_auto_groups_exactly_where_sharing_pays(name: str) -> None:
    forest = named(name).forest
    method, why = choose_method(forest)
    assert method == ("per_branch" if name in ("chains", "prefill") else "flatten")
    assert "% saved" in why
    plan = build_plan(forest)
    assert (plan.method, plan.why) == (method, why)


def test_explain_counts_the_few_shot_case_by_hand() -> None:
    """50 branches of 200 tokens over 4000: 14,000 unique tokens of 4096 bytes."""
    forest = few_shot(branches=50, prompt=4000, generated=200).forest
    report = explain(build_plan(forest, "node"), HEADS, bandwidth_bytes_per_s=1e9)
    assert report.kv_bytes_unique == report.kv_bytes_read == 14_000 * 4096
    assert report.kv_bytes_reread == 0
    assert report.kv_bytes_per_branch == 50 * 4200 * 4096
    assert report.sharing_factor == pytest.approx(15.0)
    # root and leaf give each row two partials of 32 heads x (128 + 1) floats, written and read
    assert report.partial_rows == 100
    assert report.partial_bytes == 2 * 100 * 32 * 129 * 4
    assert report.num_items == 51
    # root: 50 x 4 packed rows in two tiles of 128; leaves: one tile each; for 8 KV heads
    assert report.num_tiles == (2 + 50) * 8
    assert report.predicted_us == pytest.approx((14_000 * 4096 + report.partial_bytes) / 1e3)
    baseline = explain(build_plan(forest, "per_branch"), HEADS)
    assert baseline.kv_bytes_reread == (50 * 4200 - 14_000) * 4096


def test_a_chunk_of_many_rows_is_read_once_per_row_tile() -> None:
    """What a GPU does for any method; a tile reads up to the last token that its last row sees."""
    forest = prefill(prompt=4000, chunk=512).forest
    plan = build_plan(forest, "fused", heads=HEADS, tuning=Tuning(fixed_cuts=10_000))
    assert plan.read_tokens == sum(range(4000 - 512 + 32, 4001, 32))
    shared = build_plan(few_shot(64, 4000, 200).forest, "fused", heads=HEADS)
    assert shared.read_tokens == 2 * 4000 + 64 * 200


def test_rows_that_see_nothing_are_planned_for_any_tuning() -> None:
    forest = Forest.from_nodes([-1, 0], [0, 3], [0, 1], [0, 1, 1], [0, 0, 0])
    for method in METHODS:
        for fixed in (None, 64):
            plan = build_plan(forest, method, tuning=Tuning(num_workers=3, fixed_cuts=fixed))
            assert (plan.num_items, plan.read_tokens) == (0, 0)


def test_plans_are_sized_by_nodes_and_rows_not_tokens() -> None:
    short, long = few_shot(8, 100, 10).forest, few_shot(8, 1_000_000, 10).forest
    for method in ("per_branch", "node"):
        assert build_plan(short, method).num_pieces == build_plan(long, method).num_pieces
    assert build_plan(beam().forest, "node").num_items == beam().forest.num_nodes


def test_a_forest_without_rows_or_tokens_gives_an_empty_plan() -> None:
    for forest in (
        Forest.from_nodes([], [], [], []),
        Forest.from_nodes([-1, 0], [3, 2], [0, 3], []),
        Forest.from_nodes([-1], [0], [0], [0]),
        Forest.from_nodes([-1], [3], [0], [0], [0]),
    ):
        for method in (*METHODS, "auto"):
            plan = build_plan(forest, method)
            assert (plan.num_items, plan.read_tokens, plan.partial_rows, plan.end_slot) == (0,) * 4
            assert explain(plan, HEADS).num_tiles == 0
    assert plan_per_branch(chains(2, 5).forest).num_items == 2


def test_bad_arguments() -> None:
    forest = chains(1, 4).forest
    with pytest.raises(InputError, match=r"method: expected auto, per_branch, lean, .*got 'leaf'"):
        build_plan(forest, "leaf")
    with pytest.raises(InputError, match=r"block_tokens: expected at least 1, got 0"):
        build_plan(forest, "flatten", block_tokens=0)
    with pytest.raises(InputError, match=r"bandwidth_bytes_per_s: expected above 0, got nan"):
        explain(build_plan(forest), HEADS, bandwidth_bytes_per_s=float("nan"))
