"""The decode benchmark on a tiny model: rows say what ran, bytes are what the shape implies."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from ramify import LLM
from ramify.bench.decode import bench_decode, decode_once, expected_kv_bytes
from ramify.bench.dummy import write_dummy_model
from ramify.bench.rows import DecodeRow, append_rows, read_rows
from ramify.bench.workloads import FewShot, Recorded
from ramify.cli.main import main
from ramify.core.errors import InputError, IntegrityError
from ramify.models import read_config
from ramify.profile.shape import random_prompt
from ramify.search.recorded import RecordedNode, check_tree
from ramify.testing.models import save_tiny_llama

METHODS = ("per_branch", "node", "node_chunk", "flatten")
FEW_SHOT = FewShot(prompt_tokens=40, branches=5, new_tokens=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path)
    return str(path)


@pytest.fixture
def engines(model):
    return {
        method: LLM(model, method=method, num_slots=400, prefix_cache=False) for method in METHODS
    }


@pytest.fixture
def recorded():
    spans = [(0, 30, -29, 0, [1, 2, 4]), (1, 3, 1, 3, [3]), (2, 5, 1, 5, []), (3, 4, 4, 7, [])]
    spans.append((4, 0, 1, 0, []))  # opened and never grown
    names = ("id", "value", "start", "end", "children")
    nodes = [RecordedNode(**dict(zip(names, span, strict=True))) for span in spans]
    return Recorded(tree=check_tree({str(n.id): n for n in nodes}), title="small")


def brute_force_tokens(lengths_per_step, prompt, is_grouped):
    """KV tokens of all steps, from the branch lengths alone: an oracle without closed forms."""
    shared = sum(prompt + sum(lengths) for lengths in lengths_per_step)
    alone = sum(prompt + length for lengths in lengths_per_step for length in lengths)
    return shared if is_grouped else alone


def test_rows_of_all_methods(engines):
    rows = bench_decode(engines, FEW_SHOT, model_name="tiny", repeats=2)
    assert [row.method for row in rows] == list(METHODS)
    lengths = [[step] * 5 for step in range(1, 7)]
    token_bytes = 2 * 2 * 2 * 16 * 4  # K and V, layers, KV heads, head_dim, float32
    for row in rows:
        tokens = brute_force_tokens(lengths, 40, row.method != "per_branch")
        assert row.kv_bytes_read == row.kv_bytes_expected == tokens * token_bytes
        assert row.are_bytes_as_expected and row.are_tokens_equal
        assert row.num_steps == 6 and row.generated_tokens == 30
        assert row.baseline == "per_branch" and row.kv_saving >= 1
        assert 0 < row.attention_ms < row.total_ms
        assert row.step_ms == pytest.approx(row.total_ms / 6)
    assert rows[0].attention_speedup == 1


def test_recorded_tree(engines, recorded):
    rows = bench_decode(engines, recorded, model_name="tiny", repeats=1)
    # iterations 1..7: branch lengths of node 1 and then its child, and of node 2
    shared = sum(30 + t for t in range(1, 8)) + sum(range(1, 6))
    alone = sum(30 + t for t in range(1, 8)) + sum(30 + t for t in range(1, 6))
    for row in rows:
        expected = alone if row.method == "per_branch" else shared
        assert row.kv_bytes_read == row.kv_bytes_expected == expected * 512
        assert row.num_steps == 7 and row.generated_tokens == 7 + 5


def test_a_method_with_other_tokens_is_refused(engines, model, tmp_path):
    save_tiny_llama(tmp_path, seed=5)
    other = {"per_branch": engines["per_branch"], "flatten": LLM(str(tmp_path), num_slots=400)}
    with pytest.raises(IntegrityError, match="flatten gave other tokens than per_branch"):
        bench_decode(other, FEW_SHOT, model_name="tiny", repeats=1)


def test_bad_workloads(engines):
    with pytest.raises(InputError, match="branches: expected at least 1, got 0"):
        FewShot(prompt_tokens=4, branches=0, new_tokens=4)
    long = FewShot(prompt_tokens=500, branches=2, new_tokens=40)
    with pytest.raises(InputError, match="paths of at most 512 tokens, got 540"):
        bench_decode(engines, long, model_name="tiny")


def test_expected_bytes_grow_as_the_shape_says(engines):
    llm = engines["flatten"]
    runs = decode_once(llm, FEW_SHOT, random_prompt(40, 96, 0))
    assert runs.kv_bytes_read == expected_kv_bytes(llm, FEW_SHOT, "flatten")
    assert runs.kv_bytes_read != expected_kv_bytes(llm, FEW_SHOT, "per_branch")


def test_rows_survive_a_file(engines, tmp_path):
    rows = bench_decode({"flatten": engines["flatten"]}, FEW_SHOT, model_name="tiny", repeats=1)
    path = tmp_path / "results" / "rows.jsonl"
    append_rows(path, rows)
    append_rows(path, rows)
    assert read_rows(path) == [*rows, *rows]


def test_dummy_model_is_a_valid_llama(tmp_path):
    config = read_config(write_dummy_model(tmp_path))
    assert (config.num_q_heads, config.num_kv_heads, config.head_dim) == (8, 8, 64)
    assert config.max_positions >= 2000 + 64


def test_command_prints_one_document_with_full_rows(model, capsys, tmp_path):
    output = tmp_path / "rows.jsonl"
    argv = ["bench", "decode", "--model", model, "--device", "cpu", "--prompt-tokens", "30"]
    argv += ["--branches", "4", "--new-tokens", "5", "--repeats", "1", "--output", str(output)]
    assert main([*argv, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in rows] == ["per_branch", "flatten"]
    assert all(set(row) == {f.name for f in fields(DecodeRow)} for row in rows)
    assert rows[0]["environment"]["libraries"]["torch"]
    assert len(read_rows(output)) == 2
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "equal to the count from the shape" in printed and "per_branch" in printed


def test_command_scales_a_long_tree_only_when_allowed(capsys, tmp_path):
    save_tiny_llama(tmp_path, max_positions=64)
    names = ("id", "value", "start", "end", "children")
    spans = [(0, 60, -59, 0, [1, 2]), (1, 40, 1, 40, []), (2, 20, 1, 20, [])]
    data = {str(s[0]): dict(zip(names, s, strict=True)) for s in spans}
    path = tmp_path / "long.json"
    path.write_text(json.dumps([{"incompleted": False, "prompt": "", "data": data}]))
    argv = ["bench", "decode", "--model", str(tmp_path), "--workload", str(path)]
    argv += ["--repeats", "1"]
    assert main(argv) == 2
    assert "paths of at most 64 tokens, got 100" in capsys.readouterr().err
    assert main([*argv, "--scale"]) == 0
    assert "scaled from 100 to 64 tokens of context" in " ".join(capsys.readouterr().out.split())
    assert main([*argv, "--methods", "fast"]) == 2
