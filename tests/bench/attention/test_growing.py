"""Growing trees stay forests whose nodes have room, and every kind of plan is counted apart."""

from __future__ import annotations

import pytest
import torch

from ramify.attention import TreeAttention
from ramify.bench.attention.growing import Growth, bench_plan
from ramify.bench.attention.growing_tree import GrowingTree
from ramify.bench.attention.shapes import Heads
from ramify.bench.env import environment
from ramify.core.errors import InputError

HEADS = Heads(num_q_heads=4, num_kv_heads=2, head_dim=16)
SMALL = Growth(steps=40, branches=4, nodes=7, prompt=9, repeats=3)


def test_a_growing_tree_stays_a_forest():
    tree = GrowingTree(branches=3, prompt=10, room=121)
    for index in range(120):
        tree.append()
        if index % 20 == 19:
            tree.fork()
        if index % 50 == 49:
            tree.prune()
        tree.forest().validate()
    forest = tree.forest()
    assert len(tree.tips) == 3 + 6 - 2
    # a child starts with a token of its own, so a path gains one more at each fork
    forks = [_depth(forest, node) - 1 for node in forest.query_node.tolist()]
    assert forest.path_len.tolist() == [10 + 1 + 120 + count for count in forks]


def _depth(forest, node):
    above = int(forest.parent[node])
    return 0 if above < 0 else 1 + _depth(forest, above)


def test_the_next_token_lies_in_the_slot_after_the_last():
    tree = GrowingTree.of_size(branches=20, nodes=30, prompt=5, room=9)
    before = tree.forest()
    for _ in range(8):
        tree.append()
        after = tree.forest()
        assert after.run_begin.tolist() == before.run_begin.tolist()
        grown = after.run_len - before.run_len
        assert grown.sum() == 20 and set(grown[before.query_node]) == {1}
        after.validate()  # and nobody else has that slot
        before = after
    with pytest.raises(AssertionError, match="outgrown"):
        tree.append()


@pytest.mark.parametrize(("branches", "nodes"), [(1, 2), (5, 6), (5, 10), (1024, 1500)])
def test_trees_of_a_size(branches, nodes):
    tree = GrowingTree.of_size(branches, nodes, prompt=3, seed=2)
    forest = tree.forest()
    forest.validate()
    assert (forest.num_rows, forest.num_nodes) == (branches, nodes)
    alive = set(tree.tips)
    tree.change(30)
    assert len(tree.tips) == branches
    # ten forks and ten cuts, some of which may hit what a fork has just made
    assert branches == 1 or 0 < len(set(tree.tips) - alive) <= 20


@pytest.mark.parametrize("size", [(0, 1, 9), (4, 4, 9), (4, 9, 9), (4, 6, 0)])
def test_no_tree_of_that_size(size):
    with pytest.raises(InputError, match=r"branches|nodes|prompt"):
        GrowingTree.of_size(*size)


def test_rows_count_their_steps_and_plans(monkeypatch):
    op = TreeAttention(4, 2, 16, method="node")
    seen = []
    plan = op.plan
    monkeypatch.setattr(op, "plan", lambda forest: seen.append(forest.num_nodes) or plan(forest))
    row = bench_plan(op, "ramify:node", HEADS, environment(), SMALL)
    assert (row.steps, row.num_changes, row.branches_last, row.backend) == (40, 2, 6, "cpu")
    # a CPU has no growth, so every step is planned; before the steps and the whole trees one more
    assert row.num_advanced == 0 and len(seen) == (1 + 40) + (1 + 2 * 3)
    assert seen.count(7) >= 1 + 3
    assert 0 < row.append_p50_us <= row.append_p80_us
    assert 0 < row.full_p50_us <= row.full_p80_us and 0 < row.few_p50_us <= row.few_p80_us
    assert (row.full_branches, row.full_nodes, row.few_nodes_changed) == (4, 7, 1)
    assert row.total_ms * 1e3 >= 38 / 2 * row.append_p50_us
    assert not row.is_sync_forbidden


def test_steps_that_advance_are_not_planned(monkeypatch):
    op = TreeAttention(4, 2, 16, method="node")
    calls = []
    # as a GPU does: a few steps on one plan, then no more
    monkeypatch.setattr(op, "advance", lambda: calls.append(0) or len(calls) % 4 != 0)
    row = bench_plan(op, "ramify:node", HEADS, environment(), SMALL)
    assert len(calls) == 38 and row.num_advanced == 38 - 38 // 4


@pytest.mark.parametrize("growth", [Growth(steps=0), Growth(repeats=0)], ids=str)
def test_nothing_to_measure(growth):
    with pytest.raises(InputError, match="expected at least 1, got 0"):
        bench_plan(TreeAttention(4, 2, 16), "ramify:auto", HEADS, environment(), growth)


@pytest.mark.gpu
def test_a_gpu_is_never_waited_for():
    op = TreeAttention(4, 2, 64, torch.bfloat16, "cuda", "auto")
    heads = Heads(num_q_heads=4, num_kv_heads=2, head_dim=64)
    row = bench_plan(op, "ramify:auto", heads, environment(), SMALL)
    assert row.is_sync_forbidden
    assert torch.cuda.get_sync_debug_mode() == 0
    if op.backend == "hopper":
        assert row.num_advanced == 38
