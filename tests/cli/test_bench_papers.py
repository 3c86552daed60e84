"""`ramify bench deft` and `ramify bench lean`: counts without a GPU, tables out of rows."""

from __future__ import annotations

import json

import pytest

from ramify.cli.main import main


@pytest.fixture
def folder(tmp_path):
    nodes = [
        {"id": 0, "value": 6, "start": -5, "end": 0, "children": [1, 2]},
        {"id": 1, "value": 2, "start": 1, "end": 2, "children": []},
        {"id": 2, "value": 3, "start": 1, "end": 3, "children": []},
    ]
    entry = {"incompleted": False, "prompt": "", "data": {str(n["id"]): n for n in nodes}}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "smallToT.json").write_text(json.dumps([entry]))
    return tmp_path / "in"


def test_counts_go_to_a_file_and_into_a_page(folder, tmp_path, run_json, capsys):
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    page.write_text("<!-- table: deft-kv -->\n<!-- end -->\n")
    argv = ("bench", "deft", "--device", "cpu", "--workloads", str(folder))
    document = run_json(*argv, "--providers", "ramify:per_branch", "ramify:flatten",
                        "--output", str(path), "--page", str(page))  # fmt: skip
    small = [row for row in document["rows"] if row["workload"] == "small"]
    # 8 + 10 + 9 tokens stored in three steps, branch by branch 14 + 16 + 9
    unit = 32 * 128 * 4 * 32
    assert [row["kv_bytes_paper"] for row in small] == [39 * unit, 27 * unit]
    assert {row["attention_ms"] for row in document["rows"]} == {None}
    first = page.read_text()
    assert "| small | 1 | 3 |" in first and "| few_shot_b50 | 1 | 399 | 43.930 | 2.929 |" in first
    # again from the rows alone
    page.write_text("<!-- table: deft-kv -->\n<!-- end -->\n")
    assert main(["bench", "deft", "--rows", str(path), "--page", str(page)]) == 0
    assert page.read_text() == first
    assert "| small | 1 | 3 |" in capsys.readouterr().out


def test_lean_needs_a_gpu_or_rows(fails, tmp_path):
    assert "an NVIDIA GPU, or --rows" in fails("bench", "lean", "--device", "cpu")
    assert main(["bench", "lean", "--rows", str(_no_rows(tmp_path))]) == 0


def _no_rows(tmp_path):
    path = tmp_path / "none.jsonl"
    path.write_text("")
    return path


@pytest.mark.parametrize(
    "flags",
    [
        ("--points", "0"),
        ("--trees", "-1"),
        ("--workloads", "nowhere"),
        ("--providers", "vllm"),
        ("--device", "tpu"),
        ("--dtype", "int8"),
    ],
    ids=" ".join,
)
def test_bad_flags(flags, capsys):
    assert main(["bench", "deft", *flags]) == 2
    assert "expected" in capsys.readouterr().err
