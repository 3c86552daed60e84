"""A trace of one pass, whatever its size."""

from __future__ import annotations

import gzip
import json

from ramify.profile.perfetto import save_trace


def event(name, begin, duration, category="cpu_op", **args):
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": duration, "args": args}


EVENTS = [
    event("earlier pass", 0, 50),
    *[event(f"op {i}", 100 + i, i + 1) for i in range(40)],
    event("launch", 120, 2, "cuda_runtime", correlation=4),
    event("kernel", 900, 80, "kernel", correlation=4),  # ran late, launched in the window
    event("earlier kernel", 150, 80, "kernel", correlation=1),
]


def names(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [entry["name"] for entry in json.load(file)["traceEvents"]]


def test_one_pass_with_what_it_launched(tmp_path):
    path = tmp_path / "deep" / "trace.json.gz"
    assert save_trace(EVENTS, (100, 200), path, 10**6) == 0
    assert names(path) == [*[f"op {i}" for i in range(21)], "launch", *names(path)[22:]]
    assert len(names(path)) == 42 and names(path)[-1] == "kernel"


def test_the_shortest_are_left_out_first(tmp_path):
    path = tmp_path / "trace.json"
    cut = save_trace(EVENTS, (100, 200), path, 1500)
    assert path.stat().st_size < 1600 and cut == 42 - len(names(path)) > 0
    assert {"kernel", "op 39"} <= set(names(path)) and "op 0" not in names(path)
