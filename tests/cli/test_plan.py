"""`ramify plan` prints what build_plan made, for shapes, specs and recorded trees."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from ramify.attention.plan import METHODS, HeadShape, build_plan, explain
from ramify.cli.main import main
from ramify.cli.shapes import forest_of_shape, recorded_shape
from ramify.search.recorded import load_recorded_trees
from ramify.testing import trees

HEADS = HeadShape(num_q_heads=8, num_kv_heads=2, head_dim=64, itemsize=4)
HEAD_FLAGS = ("--q-heads", "8", "--kv-heads", "2", "--head-dim", "64", "--itemsize", "4")


@pytest.mark.parametrize("shape", [*trees.NAMED, "1,20x400,20", "2,8,16x30,5,1"])
def test_numbers_are_those_of_the_plan(shape, run_json):
    document = run_json("plan", "--shape", shape, "--explain", *HEAD_FLAGS)
    forest = forest_of_shape(shape)
    assert [plan["method"] for plan in document["plans"]] == list(METHODS)
    for shown in document["plans"]:
        plan = build_plan(forest, shown["method"])
        items = shown.pop("items")
        assert shown == asdict(explain(plan, HEADS))
        assert len(items) == plan.num_items
        assert sum(item["tokens"] for item in items) == plan.read_tokens
        pieces = [piece for item in items for piece in item["pieces"]]
        assert [piece["slot"] for piece in pieces] == plan.piece_slot.tolist()
        assert [p["end"] - p["begin"] for p in pieces] == plan.piece_len.tolist()


def test_auto_says_why(run_json, capsys):
    chosen = run_json("plan", "--shape", "1,20x400,20", "--method", "auto")
    assert [plan["method"] for plan in chosen["plans"]] == [chosen["auto"]["method"]] == ["flatten"]
    assert main(["plan", "--shape", "4,4x100,10"]) == 0
    assert "auto chooses per_branch: sharing does not pay" in capsys.readouterr().out


def test_text_lists_items_up_to_the_limit(capsys):
    argv = ["plan", "--shape", "1,4x300,20", "--method", "flatten", "--explain", "--max-items", "2"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "items 0 to 1 of 3" in printed
    assert "0[0:128]@0" in printed


def test_levels_spread_children_evenly():
    forest = forest_of_shape("2,4,4x5,3,1")
    assert forest.parent.tolist() == [-1, -1, 0, 0, 1, 1, 2, 3, 4, 5]
    assert forest.query_node.tolist() == [6, 7, 8, 9]
    assert forest.unique_tokens == 2 * 5 + 4 * 3 + 4


@pytest.mark.parametrize("shape", ["few", "1,2x3", "1,0x4,4", "ax4", "1x-2", "x"])
def test_bad_shapes(shape, fails):
    assert "expected" in fails("plan", "--shape", shape)


def test_bad_heads(fails):
    line = fails("plan", "--q-heads", "6", "--kv-heads", "4")
    assert "q_heads: expected a multiple of kv_heads 4, got 6" in line
    assert "bandwidth" in fails("plan", "--bandwidth-gbs", "0")


@pytest.fixture
def workload(tmp_path):
    """An incomplete tree, and a prompt of 6 with two children and a grandchild."""
    nodes = [(0, 6, -5, 0, [1, 2]), (1, 3, 1, 3, [3]), (2, 5, 1, 5, []), (3, 4, 4, 7, [])]
    keys = ("id", "value", "start", "end", "children")
    data = {str(node[0]): dict(zip(keys, node, strict=True)) for node in nodes}
    entries = [
        {"incompleted": True, "prompt": "", "data": {}},
        {"incompleted": False, "prompt": "", "data": data},
    ]
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps(entries))
    return path


def test_recorded_tree_at_an_iteration(workload):
    (tree,) = load_recorded_trees(workload)
    for iteration in range(tree.num_iterations):
        forest = recorded_shape(workload, 0, iteration).forest(room=0)
        assert forest.num_rows == tree.rows_at(iteration)
        assert forest.unique_tokens == tree.live_tokens_at(iteration)
        # paths have no gaps: every row stands where the clock does
        assert np.all(forest.path_len == 6 + iteration)


def test_recorded_tree_by_command(workload, run_json, fails):
    argv = ("plan", "--workload", str(workload))
    document = run_json(*argv, "--iteration", "4")
    assert document["plans"][0]["num_rows"] == 2
    assert "iteration: expected a number below 8, got 8" in fails(*argv, "--iteration", "8")
    assert "tree: expected a number below 1" in fails(*argv, "--tree", "1")
    assert "one of the two" in fails(*argv, "--shape", "beam")
