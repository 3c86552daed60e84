"""`ramify bench attention`: the document, the file, and flags that are wrong."""

from __future__ import annotations

import json

import pytest

from ramify.bench.attention import ceilings
from ramify.bench.attention.rows import read_json
from ramify.cli.main import main
from ramify.cli.options import BenchAttentionOptions, BenchOptions

GROWING = ("--growing-steps", "20", "--growing-branches", "4", "--growing-nodes", "6")
SMALL = ("--heads", "4/2", "--head-dim", "16", "--device", "cpu", "--repeats", "2")


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    monkeypatch.setitem(ceilings.COPY_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(ceilings.GEMM_SIZE, "cpu", 64)


def test_the_document_and_the_file_hold_the_same_rows(tmp_path, run_json):
    path = tmp_path / "rows.jsonl"
    providers = ("--providers", "ours", "torch:sdpa", "flashinfer:decode")
    argv = ("bench", "attention", "--shape", "1,3x9,2", "2,4x5,3", *providers, *SMALL)
    document = run_json(*argv, "--output", str(path), *GROWING)
    rows = read_json(path)
    assert [row["provider"] for row in document["rows"]] == [row.provider for row in rows]
    assert {row.shape for row in rows} == {"1,3x9,2", "2,4x5,3"}
    status = {row.provider: row.status for row in rows}
    assert status["ramify:auto"] == status["torch:sdpa"] == "timed"
    assert status["flashinfer:decode"] == "skipped"
    assert len(document["plans"]) == len([name for name in status if name.startswith("ramify")])
    kinds = [json.loads(line)["question"] for line in path.read_text().splitlines()]
    assert kinds == ["attention"] * len(rows) + ["plan"] * len(document["plans"])


def test_people_get_a_table_per_case_and_the_verdicts(capsys):
    argv = ["bench", "attention", "--shape", "1,3x9,2", "--providers", "ramify:auto", "torch:sdpa"]
    assert main([*argv, *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "3 rows, 15 tokens, sharing 2.2" in printed
    assert "geometric mean over the best peer, 4/2, sharing above 2" in printed


def test_only_a_growing_tree(tmp_path, run_json, capsys, fails):
    path = tmp_path / "rows.jsonl"
    argv = ("bench", "attention", "--providers", "none", *SMALL)
    document = run_json(*argv, *GROWING, "--growing-prompt", "30", "--output", str(path))
    assert document["rows"] == []
    (row,) = document["plans"]
    assert (row["provider"], row["prompt_tokens"], row["heads"]) == ("ramify:auto", 30, "4/2")
    assert (row["branches_first"], row["full_nodes"], row["steps"]) == (4, 6, 20)
    assert [json.loads(line)["question"] for line in path.read_text().splitlines()] == ["plan"]
    assert main([*argv, *GROWING]) == 0
    printed = capsys.readouterr().out
    assert "20 steps of 4 branches over 1000 tokens" in printed and "0/19" in printed
    assert "providers: expected some" in fails(*argv)
    assert "nodes: expected 5 to 8 for 4 branches" in fails(*argv, *GROWING[:-1], "9")


def test_providers_that_cannot_plan_here_are_passed_over(run_json):
    # peers have no plan of ours, and a CPU no hopper kernel
    names = ("--providers", "ramify:node@hopper", "ramify:node@cpu", "torch:sdpa")
    document = run_json("bench", "attention", "--shape", "1,3x9,2", *names, *SMALL, *GROWING)
    assert [row["provider"] for row in document["plans"]] == ["ramify:node@cpu"]


def test_a_recorded_tree_by_path(tmp_path, run_json):
    nodes = [
        {"id": 0, "value": 6, "start": -5, "end": 0, "children": [1, 2]},
        {"id": 1, "value": 2, "start": 1, "end": 2, "children": []},
        {"id": 2, "value": 3, "start": 1, "end": 3, "children": []},
    ]
    path = tmp_path / "trees.json"
    entry = {"incompleted": False, "prompt": "", "data": {str(n["id"]): n for n in nodes}}
    path.write_text(json.dumps([entry]))
    argv = ("bench", "attention", "--workload", str(path), "--iteration", "2")
    (row,) = run_json(*argv, "--providers", "ramify:node", *SMALL)["rows"]
    assert (row["num_rows"], row["unique_tokens"]) == (2, 10)


def test_recorded_drafts_by_path(tmp_path, run_json, fails):
    path = tmp_path / "drafts.json"
    records = [{"prompt": "", "Accept_length": [2, 1, 3]}]
    path.write_text(json.dumps({"Tree_Structure": [[0], [0, 0], [1]], "Records": records}))
    argv = ("bench", "attention", "--workload", str(path), "--prompt-tokens", "20", *SMALL)
    (row,) = run_json(*argv, "--iteration", "2", "--providers", "ramify:node")["rows"]
    # 20 + 2 + 1 tokens of context, four drafted
    assert (row["num_rows"], row["unique_tokens"]) == (4, 27)
    assert "iteration" in fails(*argv, "--iteration", "3")


@pytest.mark.parametrize(
    "flags",
    [
        ("--shape", "1,2x3"),
        ("--suite", "slow"),
        ("--providers", "vllm"),
        ("--heads", "8"),
        ("--heads", "6/4"),
        ("--device", "tpu"),
        ("--dtype", "int8"),
        ("--repeats", "0", "--shape", "1x1"),
    ],
    ids=" ".join,
)
def test_bad_flags(flags, fails):
    assert "expected" in fails("bench", "attention", *flags)


def test_bench_has_two_commands():
    from ramify.cli.main import parse

    assert isinstance(parse(["bench", "decode"]), BenchOptions)
    assert isinstance(parse(["bench", "attention"]), BenchAttentionOptions)
