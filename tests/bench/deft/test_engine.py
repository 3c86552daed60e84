"""DeFT's workloads by the whole engine: steps as recorded, the same tokens by every method."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramify import LLM
from ramify.bench.deft.engine import EngineBench, bench_engines, count_apart, grow
from ramify.bench.deft.engine_report import engine_table
from ramify.bench.deft.engine_rows import read_json
from ramify.bench.deft.growths import Sizes, engine_workloads
from ramify.bench.rows import append_rows
from ramify.core.errors import InputError
from ramify.engine.device_clock import DeviceClock
from ramify.testing.models import save_tiny_llama

SIZES = Sizes(few_shot_prompt=40, few_shot_tokens=6, num_trees=2, draft_tokens=5)
NAMES = ("few_shot_b20", "small", "spec_t4")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path, max_positions=1200)
    return str(path)


@pytest.fixture(autouse=True)
def short_prompts(monkeypatch):
    monkeypatch.setattr("ramify.bench.deft.growths.DRAFT_PROMPT", 30)


def bench_of(model, folder, **more):
    settings = {"model": model, "device": "cpu", "num_slots": 2000, "prefix_cache": False}
    return EngineBench(
        settings={**settings, **more},
        model_name="tiny",
        methods=("per_branch", "flatten", "fused"),
        workloads=engine_workloads(folder, SIZES, NAMES),
    )


@pytest.mark.parametrize("run_ahead", [False, True])
def test_rows_of_every_workload_and_method(model, folder, tmp_path, run_ahead):
    path = tmp_path / "rows.jsonl"
    bench = bench_of(model, folder, run_ahead=run_ahead)
    rows = bench_engines(replace(bench, done=lambda row: append_rows(path, [row])))
    assert read_json(path) == rows and len(rows) == 9
    assert {row.num_nodes_apart for row in rows} == {0}, "float32: every method gives these tokens"
    # 6 tokens, the first with the prefill; two searches of 5 iterations; accepted 2 + 1 + 3 behind
    # a first one
    assert {(row.workload, row.num_steps) for row in rows} == {
        ("few_shot_b20", 5),
        ("small", 10),
        ("spec_t4", 3),
    }
    assert {(row.workload, row.num_tokens, row.num_nodes) for row in rows} == {
        ("few_shot_b20", 120, 21),
        ("small", 2 * 9, 2 * 4),
        ("spec_t4", 7, 2),
    }
    for row in rows:
        assert 0 < row.device_s < row.decode_s and 0 < row.plan_s < row.decode_s
        assert row.prefill_s > 0 and row.num_graph_steps == 0


def test_a_clock_and_times_of_a_growth(model, folder):
    (workload,) = engine_workloads(folder, SIZES, ("few_shot_b30",))
    llm = LLM(model, device="cpu", num_slots=2000, prefix_cache=False)
    (growth,) = workload.trees
    assert (growth.longest_path, growth.num_steps) == (46, 5)
    clock = DeviceClock(llm.engine.executor.device)
    times, tokens = grow(llm, growth, seed=1, clock=clock)
    assert times.device_s == 0, "nobody told the engine of this clock"
    times, again = grow(llm, growth, seed=1, clock=llm.engine.executor.open_clock())
    assert times.device_s > 0 and count_apart(tokens, again) == 0
    _, other = grow(llm, growth, seed=2, clock=clock)
    assert count_apart(tokens, other) == 31
    both = times + times
    assert both.num_steps == 10 and both.decode_s == 2 * times.decode_s


def test_searches_are_shortened_and_names_and_sizes_checked(folder):
    (workload,) = engine_workloads(folder, replace(SIZES, longest_path=20), ("small",))
    assert [tree.longest_path for tree in workload.trees] == [11, 20]
    assert [tree.most_rows for tree in workload.trees] == [2, 2]
    with pytest.raises(InputError, match="only: expected any of few_shot_b20"):
        engine_workloads(None, SIZES, ("small",))
    with pytest.raises(InputError, match="num_trees: expected at least 1"):
        Sizes(num_trees=0)


def test_a_workload_must_fit_the_context(model, folder):
    with pytest.raises(InputError, match=r"at most 40 tokens, got 46 tokens \(few_shot_b20\)"):
        bench_engines(bench_of(model, folder, max_context=40))


def test_the_table_has_ratios_to_the_baseline_beside_the_papers(model, folder):
    bench = bench_of(model, folder)
    alone, flat, *_ = (row for row in bench_engines(bench) if row.workload == "few_shot_b20")
    alone = replace(alone, num_graph_steps=5, prefill_s=1.0, decode_s=7.0, device_s=6.0)
    flat = replace(flat, prefill_s=1.0, decode_s=3.0, device_s=1.0, plan_s=0.5)
    (table,) = engine_table([flat, alone, alone]).values()
    lines = table.splitlines()
    # per step: 600 ms, of it 400 without a forward pass, and 100 for plans; the paper has 12.37 s
    # against 9.98
    assert lines[2] == (
        "| few_shot_b20, flatten | 5 | 0 % | 1.000 | 3.00 | 4.00 | 600.00 | 400.00 | 100.00 "
        "| 2.33x | 2.00x | 1.24x |"
    )
    assert lines[3].startswith("| few_shot_b20, per_branch | 5 | 100 % |")
    assert lines[3].endswith("| – | – | – |") and len(lines) == 4
    # another number of steps is another workload
    (table,) = engine_table([replace(flat, num_steps=6), alone]).values()
    assert "| – | – | 1.24x |" in table
    assert engine_table([]) == {}
