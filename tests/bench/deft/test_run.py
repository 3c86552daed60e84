"""Rows of DeFT's workloads: times add up, files come back, tables say what rows say."""

from __future__ import annotations

import pytest
import torch

from ramify.bench.attention.run import Settings
from ramify.bench.deft import run
from ramify.bench.deft.counts import LAYERS
from ramify.bench.deft.report import tables
from ramify.bench.deft.rows import read_json
from ramify.bench.deft.run import (
    Times,
    count_providers,
    rows_of,
    time_workload,
)
from ramify.bench.deft.sample import sampled_steps, step_weights
from ramify.bench.deft.workloads import reasoning
from ramify.bench.rows import append_rows

SETTINGS = Settings(device=torch.device("cpu"), dtype=torch.float32, repeats=2)
NAMES = ["ramify:per_branch", "ramify:flatten", "flashinfer:decode"]


def test_times_add_up_over_steps_and_layers(folder, monkeypatch):
    monkeypatch.setattr(run, "HEADS", run.Heads(num_q_heads=4, num_kv_heads=2, head_dim=16))
    workload = reasoning(folder / "smallToT.json")
    times, steps = time_workload(workload, NAMES, 5, SETTINGS)
    assert len(steps) == 5 * len(NAMES)
    assert {row.suite for row in steps} == {"small"} and steps[0].shape == "step 1 of 10"
    own = [row.p50_us for row in steps if row.provider == "ramify:flatten"]
    weights = step_weights(workload, sampled_steps(workload, 5))
    us = sum(time * weight for time, weight in zip(own, weights, strict=True))
    assert times["ramify:flatten"].attention_ms == pytest.approx(us * LAYERS / 1e3)
    assert times["flashinfer:decode"].attention_ms is None
    assert "GPU" in times["flashinfer:decode"].reason


def test_rows_survive_a_file_and_make_tables(folder, tmp_path):
    workload = reasoning(folder / "smallToT.json")
    counts = count_providers(workload, NAMES)
    assert set(counts) == set(NAMES[:2])
    times = {
        name: Times(attention_ms=ms, num_points=5, reason=None)
        for name, ms in (("ramify:per_branch", 40.0), ("ramify:flatten", 10.0))
    }
    rows = rows_of(workload, NAMES, counts, times)
    path = tmp_path / "rows.jsonl"
    append_rows(path, rows)
    assert read_json(path) == rows
    alone, flat, peer = rows
    assert alone.kv_bytes_duplicated == alone.kv_bytes_read - alone.kv_bytes_unique > 0
    assert flat.kv_bytes_duplicated == 0 and peer.kv_bytes_duplicated is None
    # Llama-3-8B: the paper counts four times what 8 KV heads hold
    assert flat.kv_bytes_paper == 4 * flat.kv_bytes_read
    made = tables(rows)
    assert "| small | 2 | 5 |" in made["deft-kv"]
    # two trees: 20 and 5 ms each
    assert "| small | 20 | 5 (4.00x) | – | – |" in made["deft-times"]


def test_counts_and_times_of_two_runs_are_joined(folder):
    workload = reasoning(folder / "smallToT.json")
    counted = rows_of(workload, NAMES, count_providers(workload, NAMES), {})
    time = Times(attention_ms=8.0, num_points=1, reason=None)
    timed = rows_of(workload, NAMES, {}, {"ramify:per_branch": time})
    assert "deft-times" not in tables(counted) and "deft-kv" not in tables(timed)
    made = tables([*counted, *timed])
    assert made["deft-kv"] == tables(counted)["deft-kv"]
    assert "| small | 4 |" in made["deft-times"]
