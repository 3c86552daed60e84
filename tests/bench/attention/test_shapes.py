"""Shapes: counts from the text by hand, floors by formula, growth, unequal sizes, drafts."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.attention.plan import HeadShape
from ramify.bench.attention.ceilings import Ceilings, floor_of
from ramify.bench.attention.shapes import (
    ROOM,
    Heads,
    levels,
    parse_levels,
    spread,
)
from ramify.core.errors import InputError

GQA = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)


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


def test_equal_levels_spread_children_evenly():
    assert levels([3, 7], [5, 2]).parent == (-1,) * 3 + (0, 0, 0, 1, 1, 2, 2)


@pytest.mark.parametrize(("total", "count", "ratio"), [(800, 8, 0.1), (390, 12, 0.0833), (7, 3, 1)])
def test_unequal_sizes_add_up_and_keep_their_ratio(total, count, ratio):
    sizes = spread(total, count, ratio, np.random.default_rng(0))
    assert len(sizes) == count and sum(sizes) == total
    # rounding moves an end by less than one
    assert min(sizes) == pytest.approx(ratio * max(sizes), abs=1)
    assert sizes != sorted(sizes) or ratio == 1


def test_unequal_shapes_are_named_and_the_same_every_time():
    tree = parse_levels("4,40x100,8~0.25")
    assert tree.name == "4,40x100,8~0.25" and tree == parse_levels(tree.name)
    forest = tree.forest()
    assert forest.unique_tokens == 400 + 320
    rows_of_tree = np.bincount(np.array(tree.parent)[4:])
    assert rows_of_tree.sum() == 40 and rows_of_tree.min() == 4 and rows_of_tree.max() == 16
    assert {min(tree.length[:4]), max(tree.length[:4])} == {40, 160}
    assert np.array_equal(forest.row_order, np.arange(40))


def test_drafts_have_a_text_too():
    tree = parse_levels("2x10+draft3")
    assert tree == levels([2], [10], draft=3) and tree.name == "2x10+draft3"


@pytest.mark.parametrize(
    "shape", ["", "1,2x3", "1,0x4,4", "ax4", "1x-2", "4x8~0", "4x8~2", "4x8~", "4x8+draft", "x"]
)
def test_bad_shapes(shape):
    with pytest.raises(InputError, match="levels like"):
        parse_levels(shape)


def test_heads_are_named_as_written():
    assert Heads(num_q_heads=16, num_kv_heads=1).name == "16/1"
