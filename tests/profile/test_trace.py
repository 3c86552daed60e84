"""A trace as a GPU leaves it, written by hand: kernels belong to the step that launched them."""

from __future__ import annotations

import gzip
import json
import time
from itertools import pairwise

import pytest
import torch

from ramify.profile.trace import STEP, WARM_UPS, Span, outermost, spans_by_step, trace_steps


def event(cat, name, ts, dur, **args):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}


@pytest.fixture
def gpu_trace(tmp_path):
    """Two steps on the host within 40 us; their kernels follow much later."""
    events = [
        event("user_annotation", STEP, 0, 20),
        event("gpu_user_annotation", STEP, 100, 60),
        event("cuda_runtime", "cudaGraphLaunch", 5, 10, correlation=7),
        event("cpu_op", "aten::add", 16, 1),
        event("user_annotation", STEP, 20, 20),
        event("cuda_driver", "cuLaunchKernelEx", 25, 5, correlation=8),
        event("cuda_runtime", "cudaMemcpyAsync", 31, 5, correlation=9),
        event("user_annotation", STEP, 40, 20),
        event("kernel", "b", 130, 30, correlation=7),
        event("kernel", "a", 100, 30, correlation=7),
        event("kernel", "c", 160, 10, correlation=8),
        event("gpu_memcpy", "Memcpy DtoH", 170, 2, correlation=9),
        event("kernel", "launched before the trace", 90, 5, correlation=1),
        {"ph": "i", "name": "an instant", "ts": 3},
    ]
    path = tmp_path / "trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    return path


def test_kernels_of_each_launching_step(gpu_trace):
    first, second = spans_by_step(gpu_trace, on_gpu=True)
    assert [(span.name, span.begin_us, span.end_us) for span in first] == [
        ("a", 100, 130),
        ("b", 130, 160),
    ]
    assert [span.name for span in second] == ["c", "Memcpy DtoH"]


def test_outermost():
    inner = [Span("linear", 0, 10), Span("addmm", 2, 8), Span("add", 11, 1), Span("x", 11, 1)]
    assert [span.name for span in outermost(inner)] == ["linear", "add"]


def test_real_steps_on_a_cpu(tmp_path):
    """Each step's operators, called from outside, as torch's own profiler saw them."""
    made = []

    def step():
        made.append(torch.nn.functional.linear(torch.ones(4, 4), torch.ones(4, 4)).sum())
        time.sleep(0.001)

    path = tmp_path / "traces" / "trace.json"
    trace_steps(step, 3, path, on_gpu=False)
    assert len(made) == WARM_UPS + 3
    steps = spans_by_step(path, on_gpu=False)
    assert [[span.name for span in one] for one in steps] == [
        ["aten::ones", "aten::ones", "aten::linear", "aten::sum"]
    ] * 3
    begins = [one[0].begin_us for one in steps]
    assert all(late - early > 1000 for early, late in pairwise(begins))


@pytest.mark.gpu
def test_real_steps_on_a_gpu(tmp_path):
    """A graph of three products and a launch beside it: four kernels a step."""
    a = torch.ones(512, 512, device="cuda")
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(side):
        _ = a @ a
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        out = ((a @ a) @ a) @ a

    def step():
        graph.replay()
        out.add_(1.0)

    path = tmp_path / "trace.json.gz"
    trace_steps(step, 5, path, on_gpu=True)
    steps = spans_by_step(path, on_gpu=True)
    assert len(steps) == 5 and len({len(one) for one in steps}) == 1
    assert len(steps[0]) >= 4
