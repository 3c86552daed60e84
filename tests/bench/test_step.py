"""Steps as users see them: rows with their floor, the peer beside them, presets of real shapes."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch

from ramify import LLM
from ramify.bench.dummy import CONFIGS, write_dummy_model
from ramify.bench.floor import shape_floor, weight_bytes_read
from ramify.bench.generation import time_generation
from ramify.bench.rows import read_rows_of
from ramify.bench.step import StepBench, bench_steps
from ramify.bench.step_rows import StepRow
from ramify.cli.main import main
from ramify.core.errors import InputError
from ramify.engine.memory import num_parameters
from ramify.models import Shard, read_config
from ramify.profile.shape import parse_shape
from ramify.testing.models import save_tiny_llama

TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # K and V, layers, KV heads, head_dim, float32


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path)
    return str(path)


def settings(model, **more):
    fixed = {"device": "cpu", "dtype": "auto", "load_format": "auto", "prefix_cache": False}
    return {"model": model, **fixed, **more}


def test_rows_of_a_shape_and_its_peer(model):
    seen = []
    bench = StepBench(
        settings=settings(model, num_slots=400),
        model_name="tiny",
        shapes=[parse_shape("40,5,2")],
        peers=["transformers"],
        new_tokens=6,
        repeats=1,
        done=seen.append,
    )
    rows = ours, peer = bench_steps(bench)
    assert rows == seen, "every row is handed over as soon as it is there"
    assert [row.provider for row in rows] == ["ramify", "transformers"]
    # half way: two trees of 40 tokens, each of 5 branches with 3 tokens of their own
    assert ours.floor_kv_bytes == peer.floor_kv_bytes == 2 * (40 + 5 * 3) * TOKEN_BYTES
    for row in rows:
        floor_s = (row.floor_weight_bytes + row.floor_kv_bytes) / row.copy_gb_per_s / 1e9
        assert row.floor_ms == pytest.approx(floor_s * 1e3)
        assert row.pct_of_floor == pytest.approx(100 * row.floor_ms / row.step_ms)
        assert row.tok_per_s == pytest.approx(10 / row.step_ms * 1e3)
        assert row.first_token_ms > 0 and row.reason is None
    assert ours.startup_weights_s > 0 and peer.startup_weights_s is None


def test_a_step_is_the_difference_of_two_lengths(monkeypatch):
    """On a clock of its own: 7 s and 2 s a token, the first run 30 s more."""
    clock = [0.0]
    monkeypatch.setattr("ramify.bench.generation.perf_counter", lambda: clock[0])
    calls = []

    def generate(new_tokens):
        clock[0] += 7 + 2 * new_tokens + (0 if calls else 30)
        calls.append(new_tokens)

    timed = time_generation(generate, new_tokens=5, repeats=2, device=torch.device("cpu"))
    assert calls == [5, 1, 5, 1, 5]
    assert (timed.step_ms, timed.first_token_ms, timed.first_run_s) == (2000, 9000, 30)


def test_too_small_a_pool_gives_a_row_with_its_reason(model):
    bench = StepBench(
        settings=settings(model, num_slots=60),
        model_name="tiny",
        shapes=[parse_shape("40,5,1")],
        new_tokens=30,
        repeats=1,
    )
    (row,) = bench_steps(bench)
    assert row.step_ms is None and row.pct_of_floor is None and "slots" in row.reason


def test_floor_of_llama_8b(model, tmp_path):
    config = read_config(write_dummy_model(tmp_path, "dummy:llama-3.1-8b"))
    # the published size
    assert num_parameters(config, Shard()) == pytest.approx(8.03e9, rel=1e-3)
    assert config.max_positions == 131072 and config.head_dim == 128
    llm = LLM(model, num_slots=400)
    every = sum(weight.nbytes for weight in llm.engine.executor.model.parameters())
    assert weight_bytes_read(llm) == every - 96 * 48 * 4  # vocabulary, hidden size, float32
    floor = shape_floor(llm, parse_shape("10,1,1"), 2, copy_bytes_per_s=1e6)
    assert floor.ms == pytest.approx((weight_bytes_read(llm) + 11 * TOKEN_BYTES) / 1e3)


@pytest.mark.gpu
def test_a_gpu_says_what_its_steps_are_made_of(tmp_path):
    fixed = {"device": "cuda", "dtype": "bfloat16", "load_format": "dummy", "kv_gib": 1.0}
    bench = StepBench(
        settings={"model": str(write_dummy_model(tmp_path)), "prefix_cache": False, **fixed},
        model_name="dummy",
        shapes=[parse_shape("300,8,1"), parse_shape("100,4,2")],
        new_tokens=40,
        repeats=1,
    )
    for row in bench_steps(bench):
        # eight layers: at least four products and an attention each
        assert row.launches > 8 * 5
        assert 0 < row.host_us < 1e3 * row.step_ms * 2
        assert 0 <= row.idle_share < 1
        assert row.peak_bytes > 1 << 30


@pytest.mark.parametrize("name", CONFIGS)
def test_presets_are_valid_llamas(name, tmp_path):
    config = read_config(write_dummy_model(tmp_path, name))
    assert config.architecture == "LlamaForCausalLM"
    assert config.num_q_heads % config.num_kv_heads == 0


def test_command_appends_full_rows(model, capsys, tmp_path):
    output = tmp_path / "rows.jsonl"
    argv = ["bench", "decode", "--model", model, "--device", "cpu", "--shape", "9,2,1", "8,1,2"]
    argv += ["--shape", "7,1,1", "--new-tokens", "4", "--repeats", "1", "--output", str(output)]
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"]
    assert [row["prompt_tokens"] for row in printed] == [9, 8, 7]
    assert all(set(row) == {f.name for f in fields(StepRow)} for row in printed)
    assert len(read_rows_of(output, StepRow, "step")) == 3
    assert main([*argv, "--methods", "per_branch"]) == 0
    assert "per_branch" in capsys.readouterr().out


def test_bad_requests(model, capsys):
    argv = ["bench", "decode", "--model", model, "--device", "cpu"]
    for more, message in (
        (["--shape", "9,2"], "prompt,branches,trees"),
        (["--shape", "9,0,1"], "at least 1"),
        (["--shape", "500,1,1"], "at most 512 tokens"),
        (["--shape", "9,2,1", "--new-tokens", "1"], "at least 2"),
        (["--shape", "9,2,1", "--compare", "vllm"], "transformers"),
        (["--shape", "9,2,1", "--model", "dummy:llama"], "dummy:llama-3.1-8b"),
    ):
        assert main([*argv, *more]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="new_tokens"):
        time_generation(print, new_tokens=1, repeats=1, device=torch.device("cpu"))
