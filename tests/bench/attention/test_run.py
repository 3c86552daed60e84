"""The harness end to end on a CPU: rows, gates, verdicts, pictures."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from ramify.attention import build_plan
from ramify.bench.attention import providers, run
from ramify.bench.attention.plot import plot_rows
from ramify.bench.attention.providers.base import Facts, Prepared
from ramify.bench.attention.rows import read_json
from ramify.bench.attention.run import Settings, bench_attention
from ramify.bench.attention.summary import geometric_means, slower_than_a_peer, verdicts
from ramify.bench.attention.timers import WallTimer, timed_plan
from ramify.bench.rows import append_rows
from ramify.core.errors import BackendUnavailable, InputError

SETTINGS = Settings(device=torch.device("cpu"), dtype=torch.float32, repeats=3)


class _Broken:
    """Answers with zeros, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.runs = 0

    def prepare(self, problem):
        def run():
            self.runs += 1
            if self.error is not None:
                raise self.error
            return torch.zeros_like(problem.q)

        return Prepared(plan=lambda: None, run=run, facts=Facts)


def test_rows_say_what_was_measured(case, draft_case):
    names = ["ramify:auto", "ramify:per_branch", "flashinfer:decode", "torch:sdpa"]
    seen = []
    rows = bench_attention([case, draft_case], names, SETTINGS, done=seen.append)
    assert [row for batch in seen for row in batch] == rows
    assert [row.provider for row in rows] == names * 2
    ours, alone, absent, sdpa = rows[:4]
    plan = build_plan(case.tree.forest())
    token_bytes = 2 * 2 * 16 * 4
    assert ours.kv_bytes_unique == plan.unique_tokens * token_bytes
    assert ours.kv_bytes_reread == (plan.read_tokens - plan.unique_tokens) * token_bytes
    assert ours.partial_bytes == 2 * plan.partial_rows * 4 * 4 * 17
    assert (ours.method, ours.backend) == (plan.method, "cpu")
    path_bytes = case.tree.forest().path_tokens * token_bytes
    assert alone.kv_bytes_reread == sdpa.kv_bytes_reread == path_bytes - alone.kv_bytes_unique
    assert sdpa.plan_step_us is None
    for row in (ours, alone):
        assert 0 <= row.plan_host_us <= row.plan_step_us and row.plan_cold_us > 0
    for row in (ours, alone, sdpa):
        assert row.status == "timed" and row.repeats == 3 and row.timing == "wall"
        assert 0 < row.p20_us <= row.p50_us <= row.p80_us
        assert row.pct_of_floor == pytest.approx(100 * row.floor_us / row.p50_us)
    assert absent.status == "skipped" and "GPU" in absent.reason
    assert absent.p50_us is None and absent.repeats == 0


def test_wrong_and_raising_providers_are_reported_and_not_timed(case, monkeypatch):
    wrong, raising = _Broken(), _Broken(RuntimeError("no\nkernel"))
    monkeypatch.setitem(providers.PROVIDERS, "wrong", lambda: wrong)
    monkeypatch.setitem(providers.PROVIDERS, "raising", lambda: raising)
    rows = bench_attention([case], ["wrong", "raising", "torch:sdpa"], SETTINGS)
    assert [row.status for row in rows] == ["failed", "failed", "timed"]
    assert "times the error of plain torch" in rows[0].reason
    assert rows[0].error_ratio > 4 and rows[0].p50_us is None
    assert rows[1].reason == "RuntimeError: no kernel (run)"
    assert wrong.runs == raising.runs == 1


def test_a_lost_device_is_blamed_on_who_lost_it(case, draft_case, monkeypatch):
    broken = _Broken(RuntimeError("illegal memory access"))
    monkeypatch.setitem(providers.PROVIDERS, "broken", lambda: broken)
    monkeypatch.setattr(WallTimer, "is_lost", lambda timer: broken.runs > 0)
    rows = bench_attention([case, draft_case], ["torch:sdpa", "broken", "ramify:node"], SETTINGS)
    assert [row.status for row in rows] == ["skipped", "failed", "skipped"]  # and no second case
    assert rows[0].reason == rows[2].reason == "the device was lost to a fault of broken"
    assert "illegal memory access" in rows[1].reason


def test_bad_settings(case):
    with pytest.raises(InputError, match="provider"):
        bench_attention([case], ["nobody"], SETTINGS)
    with pytest.raises(InputError, match="repeats"):
        none = Settings(device=torch.device("cpu"), dtype=torch.float32, repeats=0)
        bench_attention([case], ["torch:sdpa"], none)


def test_rows_survive_a_file(case, tmp_path):
    rows = bench_attention([case], ["ramify:node", "flashinfer:batch"], SETTINGS)
    path = tmp_path / "new" / "rows.jsonl"
    append_rows(path, rows[:1])
    append_rows(path, rows[1:])
    assert read_json(path) == rows


def test_verdicts_compare_auto_with_the_fastest_peer(case):
    (row,) = bench_attention([case], ["ramify:auto"], SETTINGS)
    row = replace(row, sharing=5.0, heads="32/8")

    def at(provider, p50_us, shape="a"):
        return replace(row, provider=provider, p50_us=p50_us, shape=shape)

    rows = [
        at("ramify:auto", 10.0),
        at("ramify:node", 8.0),
        at("torch:sdpa", 40.0),
        at("torch:flex", 30.0),
        at("ramify:auto", 10.0, "b"),
        at("torch:sdpa", 120.0, "b"),
        at("ramify:auto", 10.0, "c"),
        at("torch:sdpa", None, "c"),
    ]
    first, second, third = verdicts(rows)
    assert first.speedup == 3.0 and first.ours.provider == "ramify:node"
    assert first.peer.provider == "torch:flex"
    assert second.speedup == 12.0 and third.speedup is None
    (mean, count) = geometric_means([first, second, third])["32/8, sharing above 2"]
    assert mean == pytest.approx(6.0) and count == 2
    assert slower_than_a_peer([first, second, third]) == []


def test_cases_lost_are_listed_worst_first(case):
    (row,) = bench_attention([case], ["ramify:auto"], SETTINGS)
    rows = [
        replace(row, shape=shape, provider=provider, p50_us=p50_us)
        for shape, ours, peer in (("a", 10.0, 9.0), ("b", 10.0, 11.0), ("c", 10.0, 5.0))
        for provider, p50_us in (("ramify:auto", ours), ("torch:sdpa", peer))
    ]
    lost = slower_than_a_peer(verdicts(rows))
    assert [one.shape for one in lost] == ["c", "a"]
    assert lost[0].speedup == 0.5


def test_slow_cases_get_fewer_rounds(case, monkeypatch):
    monkeypatch.setattr(run, "CASE_US", 1.0)
    many = replace(SETTINGS, repeats=20)
    rows = bench_attention([case], ["ramify:node", "torch:sdpa"], many)
    assert {row.repeats for row in rows} == {run.FEWEST_ROUNDS}


def test_timers_measure_the_call_and_keep_plan_apart():
    calls = []
    timer = WallTimer()
    samples = timer.measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert sorted(calls) == ["a"] * 3 + ["b"] * 3 and calls[:4] == ["a", "b", "b", "a"]
    assert all(len(of) == 3 and min(of) >= 0 for of in samples.values())
    host_us, total_us = timed_plan(lambda: calls.append("plan"), timer)
    assert calls[-1] == "plan" and 0 <= host_us <= total_us


def test_no_picture_without_matplotlib(case, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match="matplotlib"):
        plot_rows([], tmp_path / "x.png")


def test_a_picture(case, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: bench)")
    rows = bench_attention([case], ["ramify:node", "torch:sdpa"], SETTINGS)
    plot_rows(rows, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "ramify:node" in text or "<svg" in text
