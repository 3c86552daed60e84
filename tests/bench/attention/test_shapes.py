"""The suites: counts from the shape by hand, floors by formula, growth, drafts, recorded trees."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.attention.plan import HeadShape
from ramify.bench.attention.ceilings import Ceilings, floor_of
from ramify.bench.attention.shapes import (
    ROOM,
    SUITES,
    Case,
    Heads,
    levels,
    parse_levels,
    recorded_state,
    suite,
)
from ramify.core.errors import InputError
from ramify.search.recorded import RecordedNode, check_tree

CASES = [case for name in SUITES if name != "spec" for case in suite(name)]
GQA = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)


def _parts(case: Case) -> tuple[list[int], list[int]]:
    nodes, tokens = case.tree.name.split("x")
    return [int(n) for n in nodes.split(",")], [int(n) for n in tokens.split(",")]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.suite}-{c.heads.name}-{c.tree.name}")
def test_counts_are_those_of_the_name(case):
    """Every leaf sees one node per level, and levels are stored once."""
    nodes, tokens = _parts(case)
    forest = case.tree.forest()
    assert forest.num_rows == nodes[-1]
    assert forest.unique_tokens == sum(n * t for n, t in zip(nodes, tokens, strict=True))
    assert forest.path_tokens == nodes[-1] * sum(tokens)


@pytest.mark.parametrize(
    ("name", "sharing"),
    # 1,10x4000,400: 10 x 4400 tokens on paths, 8000 stored; and so on
    [("1,10x4000,400", 5.5), ("1,256x1000,4", 127.0), ("8,64x8192,256", 6.6), ("4x7", 1.0)],
)
def test_sharing(name, sharing):
    forest = parse_levels(name).forest()
    assert forest.path_tokens / forest.unique_tokens == pytest.approx(sharing, abs=0.02)


def test_floors_by_hand():
    """1,1024x2048,32 at 32/8 heads of 128 in 2 bytes, 4 TB/s and 800 TFLOP/s."""
    forest = parse_levels("1,1024x2048,32").forest()
    ceilings = Ceilings(copy_bytes_per_s=4e12, gemm_flop_per_s=800e12)
    floor = floor_of(forest, GQA, ceilings)
    assert floor.kv_bytes == (2048 + 1024 * 32) * 2 * 8 * 128 * 2
    assert floor.qo_bytes == 2 * 1024 * 32 * 128 * 2
    assert floor.flop == 4 * 32 * 128 * 1024 * (2048 + 32)
    assert floor.bytes_us == pytest.approx(39.8459, rel=1e-4)
    assert floor.tensor_us == pytest.approx(43.6208, rel=1e-4)
    assert floor.kind == "tensor" and floor.us == floor.tensor_us


def test_rows_are_in_depth_first_order():
    for case in CASES:
        forest = case.tree.forest()
        assert np.array_equal(forest.row_order, np.arange(forest.num_rows))


def test_leaves_grow_in_place():
    tree = levels([1, 3], [5, 2])
    before, after = tree.forest(), tree.forest(4)
    assert after.length.tolist() == [5, 6, 6, 6]
    assert np.array_equal(before.run_begin, after.run_begin)
    assert tree.forest(ROOM).run_begin[-1] + 2 + ROOM == tree.num_slots()


def test_drafts_are_binary_trees_of_single_tokens():
    forest = levels([2], [10], draft=3).forest()
    assert forest.parent.tolist() == [-1, -1, 0, 2, 2, 1, 5, 5]
    assert forest.path_len.tolist() == [11, 12, 12, 11, 12, 12]


@pytest.mark.parametrize("shape", ["", "1,2x3", "1,0x4,4", "ax4", "1x-2"])
def test_bad_shapes(shape):
    with pytest.raises(InputError, match="levels like"):
        parse_levels(shape)


def test_unknown_suite():
    with pytest.raises(InputError, match="fasttree, deft"):
        suite("slow")


def test_recorded_state_counts_what_is_live():
    def node(id, value, start, end, *children):
        return RecordedNode(id=id, value=value, start=start, end=end, children=list(children))

    nodes = [node(0, 6, -5, 0, 1, 2), node(1, 2, 1, 2), node(2, 3, 1, 3)]
    recorded = check_tree({str(n.id): n for n in nodes})
    for iteration in range(recorded.num_iterations):
        forest = recorded_state(recorded, iteration).forest()
        assert forest.num_rows == recorded.rows_at(iteration)
        assert forest.unique_tokens == recorded.live_tokens_at(iteration)
    with pytest.raises(InputError, match="iteration"):
        recorded_state(recorded, recorded.num_iterations)


def test_heads_are_named_as_written():
    assert Heads(num_q_heads=16, num_kv_heads=1).name == "16/1"
