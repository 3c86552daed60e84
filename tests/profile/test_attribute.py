"""Traces by hand: a CPU's intervals, and a GPU's kernels that run long after their launch."""

from __future__ import annotations

import pytest

from ramify.profile.attribute import ATTENTION_RANGE, kind_of_event, seconds_by_kind
from ramify.profile.operators import kinds


def event(name, begin, duration, category="cpu_op", **args):
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": duration, "args": args}


def host():
    return [
        event("aten::linear", 0, 100),
        event("aten::addmm", 10, 60),
        event("aten::copy_", 20, 10),  # inside a product: part of it
        event(ATTENTION_RANGE + kinds.CROSS, 200, 100, "user_annotation"),
        event("aten::bmm", 210, 40),  # inside attention: part of it
        event("aten::silu", 400, 30),
        event("aten::view", 440, 5),
        event("aten::mm", 2000, 50),  # outside the window
    ]


def test_the_outermost_known_interval_counts_on_a_cpu():
    seconds = seconds_by_kind(host(), 0, 1000, on_gpu=False)
    expected = {kinds.LINEAR: 60e-6, kinds.CROSS: 100e-6, kinds.ELEMENTWISE: 30e-6}
    assert seconds == pytest.approx(expected)


def test_kernels_belong_to_their_launch_and_share_no_moment():
    launched = {1: 30, 2: 220, 3: 230, 4: 405, 5: 990, 6: 2010}
    calls = [event("launch", at, 2, "cuda_runtime", correlation=n) for n, at in launched.items()]
    ran = {1: (500, 100), 2: (600, 50), 3: (620, 80), 4: (700, 10), 5: (1200, 7), 6: (2100, 9)}
    kernels = [event("k", at, us, "kernel", correlation=n) for n, (at, us) in ran.items()]
    seconds = seconds_by_kind([*host(), *calls, *kernels], 0, 1000, on_gpu=True)
    expected = {kinds.LINEAR: 100e-6, kinds.CROSS: 100e-6, kinds.ELEMENTWISE: 17e-6}
    assert seconds == pytest.approx(expected)


def test_names_of_events():
    assert kind_of_event("aten::_to_copy") == kinds.ELEMENTWISE
    assert kind_of_event("aten::add_") == kinds.ELEMENTWISE
    assert kind_of_event("aten::convolution") == kinds.CONVOLUTION
    assert kind_of_event("aten::conv2d") is None  # the convolution is inside
    assert kind_of_event("cudaLaunchKernel") is None and kind_of_event("no::such") is None
