"""Traces as torch writes them, against plain JSON; events by the range that set them off."""

from __future__ import annotations

import gzip
import json

import msgspec
import pytest
import torch
from msgspec import Raw
from torch.profiler import ProfilerActivity, profile

from ramify.profile.events import Event, launches, read_events, split


def event(name, begin, duration, category="cpu_op", **args):
    return Event(name, begin, duration, category, args=Raw(msgspec.json.encode(args)))


def test_a_real_trace_is_read_as_json_has_it(tmp_path):
    path = tmp_path / "trace.json"
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        torch.cat([torch.ones(3, 4), torch.ones(3, 5)], 1) @ torch.ones(9, 2)
    profiler.export_chrome_trace(str(path))
    expected = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("ph") == "X"]
    found = read_events(path)
    assert len(found) == len(expected) > 4
    for one, plain in zip(found, expected, strict=True):
        assert (one.name, one.cat, one.ts, one.dur) == pytest.approx(
            (plain["name"], plain["cat"], plain["ts"], plain["dur"])
        )
        assert (one.pid, one.tid) == (plain["pid"], plain["tid"])
        dims = plain.get("args", {}).get("Input Dims", ())
        assert one.arguments().input_dims == dims
    assert [[[3, 4], [3, 5]], []] in [one.arguments().input_dims for one in found]


EVENTS = [
    event("launch", 25, 5, "cuda_driver", correlation=8),
    event("op", 12, 1),
    event("before all", 5, 1),
    event("late", 500, 5, "kernel", correlation=8, grid=[2, 1, 1], block=[64, 1, 1]),
    event("of nobody", 13, 5, "kernel", correlation=1),
    event("at the end", 20, 1),
    event("uncorrelated", 14, 5, "cuda_runtime"),
]


def test_kernels_belong_to_the_range_of_their_launch():
    first, second = split(EVENTS, [(10, 20), (20, 30)])
    assert {one.name for one in first} == {"op", "uncorrelated"}
    assert {one.name for one in second} == {"launch", "late", "at the end"}
    assert split(EVENTS, []) == []


def test_launches_carry_their_call_where_known():
    found = {ran.name: call and call.name for ran, call in launches(EVENTS)}
    assert found == {"late": "launch", "of nobody": None}
    (late,) = filter(lambda one: one.name == "late", EVENTS)
    assert late.arguments().grid == (2, 1, 1) and late.arguments().block == (64, 1, 1)


def test_files_may_be_packed_and_hold_more_than_complete_events(tmp_path):
    events = [
        {"ph": "M", "name": "process_name", "ts": 0, "pid": 1, "tid": "a"},
        {"ph": "s", "id": 3, "ts": 1, "cat": "ac2g", "name": "ac2g", "pid": 0, "tid": 7},
        {"ph": "X", "name": "k", "cat": "kernel", "ts": 4674777094939.911, "dur": 1.5},
    ]
    content = json.dumps({"schemaVersion": 1, "traceEvents": events}).encode()
    for path, pack in ((tmp_path / "a.json", bytes), (tmp_path / "a.json.gz", gzip.compress)):
        path.write_bytes(pack(content))
        (found,) = read_events(path)
        assert (found.name, found.ts, found.end_us) == ("k", 4674777094939.911, 4674777094941.411)
