"""`--export` and `ramify show`: what a command grew is drawn again from its file."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ramify import LLM, SamplingParams, load_tree
from ramify.cli.main import main

SMALL = ("--k", "2", "--width", "2", "--depth", "2", "--max-tokens", "4")


def test_a_search_is_shown_from_its_file(bytes_model, puzzle_file, tmp_path, capsys, run_json):
    path = tmp_path / "tree.json"
    argv = ["run", "--model", bytes_model, "--task-file", str(puzzle_file), "--count", "1", *SMALL]
    document = run_json(*argv, "--seed", "3", "--export", str(path))
    tree = load_tree(path)
    (problem,) = document["problems"]
    assert [node.token_ids for node in tree.nodes] == [n["token_ids"] for n in problem["tree"]]
    assert tree.stats == problem["stats"] and tree.model == bytes_model
    assert main([*argv, "--seed", "3", "--height", "40"]) == 0
    drawn = [line for line in capsys.readouterr().out.splitlines() if "─ " in line]
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert drawn and all(line in shown for line in drawn)
    assert f"{len(tree.nodes)} nodes, {tree.nodes[0].num_branches} branches" in shown


def test_the_page_is_written_too(bytes_model, tmp_path, run_json):
    tree, page = tmp_path / "tree.json", tmp_path / "page.html"
    argv = ["generate", "--model", bytes_model, "--prompt", "abc", "--n", "3", "--max-tokens", "5"]
    run_json(*argv, "--seed", "7", "--export", str(tree))
    summary = run_json("show", str(tree), "--output", str(page))
    assert (summary["nodes"], summary["branches"], summary["outputs"]) == (4, 3, [])
    assert summary["stored_tokens"] == 3 + 3 * 5 and summary["branch_tokens"] == 3 * 8
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    params = SamplingParams(n=3, max_tokens=5, seed=7, logprobs=0)
    (expected,) = LLM(bytes_model).generate("abc", params)
    for node, output in zip(load_tree(tree).nodes[1:], expected.outputs, strict=True):
        assert node.token_ids == output.token_ids
        assert node.token_logprobs == pytest.approx([t.logprob for t in output.logprobs], abs=1e-5)


def test_a_tree_is_shown_without_loading_torch(bytes_model, tmp_path, run_json):
    argv = ["generate", "--model", bytes_model, "--prompt", "a", "--max-tokens", "1"]
    run_json(*argv, "--export", str(tmp_path / "t.json"))
    code = (
        "import sys; from ramify.cli.main import main; "
        f"sys.exit(main(['show', {str(tmp_path / 't.json')!r}]) or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_several_trees_are_numbered(bytes_model, tmp_path, run_json):
    argv = ["generate", "--model", bytes_model, "--prompt", "a", "b", "--max-tokens", "2"]
    run_json(*argv, "--export", str(tmp_path / "t.json"))
    assert [load_tree(tmp_path / f"t-{n}.json").nodes[0].text for n in (1, 2)] == ["a", "b"]


def test_bad_input(bytes_model, tmp_path, fails):
    generate = ("generate", "--model", bytes_model, "--prompt", "a", "--export")
    wanted = "export: expected a file in a directory that exists"
    assert wanted in fails(*generate, str(tmp_path / "no" / "t.json"))
    assert wanted in fails("run", "--prompt", "a", "--export", str(tmp_path))
    assert "a readable file, got No such file" in fails("show", str(tmp_path / "none.json"))
    (tmp_path / "other.json").write_text(json.dumps({"format": "ramify-tree", "version": 99}))
    assert "got format ramify-tree of version 99" in fails("show", str(tmp_path / "other.json"))
    assert "height: expected at least 3" in fails("show", "x", "--height", "2")
