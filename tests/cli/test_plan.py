"""`ramify plan` prints what was planned, and what a run of it reads and takes."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ramify.attention import METHODS, HeadShape, TreeAttention, build_plan, explain
from ramify.attention.backends.cpu import CpuBackend
from ramify.attention.plan.cost import Tuning
from ramify.cli import plan as command
from ramify.cli.main import main, parse
from ramify.cli.shapes import forest_of_shape, recorded_shape
from ramify.search.recorded import load_recorded_trees
from ramify.testing import trees

HEADS = HeadShape(num_q_heads=8, num_kv_heads=2, head_dim=64, itemsize=4)
SMALL = ("--q-heads", "8", "--kv-heads", "2", "--head-dim", "64", "--device", "cpu")
HEAD_FLAGS = (*SMALL, "--itemsize", "4")


@pytest.fixture
def on_workers(monkeypatch):
    """The CPU plans as a GPU of so many workers does."""
    tuning = Tuning(num_workers=3)
    monkeypatch.setattr(CpuBackend, "tuning", tuning)
    monkeypatch.setattr(CpuBackend, "auto_method", "fused")
    return tuning


@pytest.mark.parametrize("shape", [*trees.NAMED, "1,20x400,20", "2,8,16x30,5,1"])
def test_numbers_are_those_of_the_plan(shape, run_json):
    document = run_json("plan", "--shape", shape, "--explain", *HEAD_FLAGS)
    forest = forest_of_shape(shape)
    assert [plan["method"] for plan in document["plans"]] == list(METHODS)
    for shown in document["plans"]:
        plan = build_plan(forest, shown["method"], heads=HEADS)
        items = shown.pop("items")
        assert shown.pop("achieved") is None
        assert shown == asdict(explain(plan, HEADS))
        assert all(item["workers"] is None for item in items)
        assert len(items) == plan.num_items
        assert sum(item["tokens"] for item in items) == plan.read_tokens
        pieces = [piece for item in items for piece in item["pieces"]]
        assert [piece["slot"] for piece in pieces] == plan.piece_slot.tolist()
        assert [p["end"] - p["begin"] for p in pieces] == plan.piece_len.tolist()


def test_auto_says_why(run_json, capsys):
    shape = ("--shape", "1,20x400,20", "--device", "cpu")
    chosen = run_json("plan", *shape, "--method", "auto")
    assert [plan["method"] for plan in chosen["plans"]] == [chosen["auto"]["method"]] == ["flatten"]
    assert main(["plan", "--shape", "4,4x100,10", "--device", "cpu"]) == 0
    assert "auto chooses per_branch: sharing does not pay" in capsys.readouterr().out


def test_text_lists_items_up_to_the_limit(capsys):
    argv = ["plan", "--shape", "1,4x300,20", "--method", "flatten", "--explain", "--max-items", "2"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "items 0 to 1 of 3" in printed
    assert "0[0:128]@0" in printed
    assert "achieved" not in printed and "worker" not in printed


def test_every_method_reads_what_was_predicted(run_json):
    argv = ("plan", "--shape", "1,4x300,20", "--measure", "--repeats", "3", *HEAD_FLAGS)
    document = run_json(*argv)
    assert (document["device"], document["backend"]) == ("cpu", "cpu")
    assert document["environment"]["command"]
    for plan in document["plans"]:
        achieved = plan["achieved"]
        assert achieved["kv_bytes_read"] == plan["kv_bytes_read"] > 0
        assert achieved["kv_bytes_ratio"] == 1.0
        assert 0 < achieved["p20_us"] <= achieved["p50_us"] <= achieved["p80_us"]
        assert achieved["us_ratio"] == pytest.approx(achieved["p50_us"] / plan["predicted_us"])
        assert (achieved["timing"], achieved["repeats"]) == ("wall", 3)


def test_people_see_predicted_beside_achieved(on_workers, capsys):
    argv = ["plan", "--shape", "1,4x300,20", "--method", "fused", "--measure", "--repeats", "2"]
    assert main([*argv, "--explain", *HEAD_FLAGS]) == 0
    printed = capsys.readouterr().out
    assert "3 workers a KV head" in printed
    assert "auto chooses fused: what backend cpu plans for every forest" in printed
    (header,) = (line for line in printed.splitlines() if "KV planned" in line)
    assert header.split() == "method KV planned read ratio us predicted p50 p20 p80 ratio".split()
    (line,) = (
        line for line in printed.splitlines() if line.startswith("fused ") and "1.00" in line
    )
    assert line.split()[:6] == ["fused", "380.0", "KiB", "380.0", "KiB", "1.00"]
    assert "worker" in printed and "busiest" in printed


def test_with_workers_the_time_is_that_of_the_cost_table(on_workers, run_json):
    argv = ("plan", "--shape", "1,40x900,20", "--explain", "--method", "fused", *HEAD_FLAGS)
    (shown,) = run_json(*argv)["plans"]
    forest = forest_of_shape("1,40x900,20")
    plan = build_plan(forest, "fused", heads=HEADS, tuning=on_workers)
    report = explain(plan, HEADS, tuning=on_workers)
    assert (shown["predicted_us"], shown["num_workers"]) == (report.predicted_us, 3)
    assert plan.item_worker is not None
    assert [item["workers"] for item in shown["items"]] == [[w] for w in plan.item_worker.tolist()]


def test_a_gpu_is_measured_unless_told_not_to():
    def asked(*flags):
        options = parse(["plan", *flags])
        return [command._is_measured(options, torch.device(kind)) for kind in ("cuda", "cpu")]

    assert asked() == [False, False]
    assert asked("--explain") == [True, False]
    assert asked("--explain", "--no-measure") == [False, False]
    assert asked("--measure") == [True, True]
    # blocks of another length are only shown
    assert asked("--explain", "--block-tokens", "64") == [False, False]


@pytest.mark.parametrize(
    ("flags", "dtypes"),
    [
        ((), (torch.bfloat16, torch.bfloat16)),
        (("--itemsize", "4"), (torch.float32, torch.float32)),
        (("--dtype", "float16"), (torch.float16, torch.float16)),
        (("--dtype", "float64", "--itemsize", "8"), (torch.float64, torch.float64)),
        (("--itemsize", "1"), (torch.bfloat16, torch.float8_e4m3fn)),
        (("--itemsize", "1", "--dtype", "float32"), (torch.float32, torch.float8_e4m3fn)),
    ],
    ids=str,
)
def test_dtypes_of_a_run(flags, dtypes):
    op = command._open(parse(["plan", *flags]), torch.device("cpu"), "node")
    assert isinstance(op, TreeAttention) and (op.dtype, op.kv_dtype) == dtypes
    assert op.heads.itemsize == dtypes[1].itemsize


def test_blocks_of_another_length(run_json, fails):
    argv = ("plan", "--shape", "1,4x300,20", "--block-tokens", "64", *HEAD_FLAGS)
    methods = {plan["method"]: plan["num_items"] for plan in run_json(*argv)["plans"]}
    assert (methods["flatten"], methods["node_chunk"]) == (6, 9)
    assert "block_tokens: expected 128" in fails(*argv, "--measure")


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
    assert "bandwidth" in fails("plan", "--bandwidth-gbs", "0", "--device", "cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--itemsize", "3"), "itemsize: expected one of 1, 2, 4, 8, got 3"),
        (("--itemsize", "2", "--dtype", "float32"), "itemsize: expected 1 or 4"),
        (("--dtype", "int8"), "dtype: expected auto, float16"),
        (("--device", "tpu"), "device: expected auto, cpu"),
        (("--measure", "--no-measure"), "measure, no_measure: expected one of the two"),
        (("--measure", "--repeats", "0"), "repeats: expected at least 1"),
        (("--backend", "magic"), "backend: expected auto"),
    ],
    ids=str,
)
def test_bad_flags(flags, expected, fails):
    assert expected in fails("plan", "--shape", "1x9", *flags)


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
