"""The device clock: spans add up, on the host's clock for a CPU and on events for a GPU."""

from __future__ import annotations

import time

import pytest
import torch

from ramify import LLM, SamplingParams
from ramify.bench.dummy import write_dummy_model
from ramify.engine.device_clock import DeviceClock


def test_spans_add_up_and_nothing_else_counts(monkeypatch):
    now = iter([10.0, 13.0, 20.0, 20.5])
    clock = DeviceClock(torch.device("cpu"))
    monkeypatch.setattr("ramify.engine.device_clock.time.perf_counter", lambda: next(now))
    with clock:
        pass
    assert clock.total_s() == 3.0
    with clock:
        pass
    assert clock.total_s() == 3.5


@pytest.mark.gpu
def test_a_gpu_is_timed_without_waiting_for_it():
    x = torch.randn(8192, 8192, device="cuda")
    clock = DeviceClock(x.device)
    x @ x  # the library starts
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(3):
        with clock:
            for _ in range(10):
                x @ x
    launched_s = time.perf_counter() - begin
    total_s = clock.total_s()
    wall_s = time.perf_counter() - begin
    assert launched_s < total_s / 2 and 0.9 * wall_s < total_s <= wall_s


@pytest.mark.gpu
def test_decode_steps_are_graphs_captured_beforehand(tmp_path):
    settings = {"load_format": "dummy", "kv_gib": 1, "prefix_cache": False}
    llm = LLM(str(write_dummy_model(tmp_path)), device="cuda", **settings)
    loop = llm.engine.executor.loop
    loop.capture(9)
    clock = llm.engine.executor.open_clock()
    for n in (1, 3, 9):
        before, device_s = loop.num_replays, clock.total_s()
        llm.generate([[5] * 600], SamplingParams(n=n, max_tokens=40, ignore_eos=True))
        # the prompt has more rows than a graph takes
        assert loop.num_replays - before in (39, 40), "one step may have been computed too many"
        assert clock.total_s() > device_s
