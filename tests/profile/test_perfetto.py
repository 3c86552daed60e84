"""A trace of one pass, whatever its size."""

from __future__ import annotations

import gzip
import json

import msgspec
from msgspec import Raw

from ramify.profile.events import Event, read_events, split
from ramify.profile.perfetto import save_trace


def event(name, begin, duration, category="cpu_op", **args):
    return Event(name, begin, duration, category, args=Raw(msgspec.json.encode(args)))


EVENTS = [
    event("earlier pass", 0, 50),
    *[event(f"op {i}", 100 + i, i + 1) for i in range(40)],
    event("launch", 120, 2, "cuda_runtime", correlation=4),
    event("kernel", 900, 80, "kernel", correlation=4),  # ran late, launched in the window
    event("earlier kernel", 150, 80, "kernel", correlation=1),
]
(PASS,) = split(EVENTS, [(100, 200)])


def names(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [entry["name"] for entry in json.load(file)["traceEvents"]]


def test_one_pass_with_what_it_launched(tmp_path):
    path = tmp_path / "deep" / "trace.json.gz"
    assert save_trace(PASS, path, 10**6) == 0
    assert names(path) == [*[f"op {i}" for i in range(21)], "launch", *names(path)[22:]]
    assert read_events(path)[21].arguments().correlation == 4
    assert len(names(path)) == 42 and names(path)[-1] == "kernel"


def test_the_shortest_are_left_out_first(tmp_path):
    path = tmp_path / "trace.json"
    cut = save_trace(PASS, path, 1500)
    assert path.stat().st_size < 1600 and cut == 42 - len(names(path)) > 0
    assert {"kernel", "op 39"} <= set(names(path)) and "op 0" not in names(path)
