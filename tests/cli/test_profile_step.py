"""`ramify profile step`."""

from __future__ import annotations

import gzip
import json

from ramify.cli.main import main


def argv(model, trace, *more):
    base = ["profile", "step", "--model", model, "--device", "cpu", "--shape", "12,3,2"]
    return [*base, "--steps", "3", "--timed-steps", "2", "--trace", str(trace), *more]


def test_trace_and_document(run_json, bytes_model, tmp_path):
    trace = tmp_path / "trace.json.gz"
    document = run_json(*argv(bytes_model, trace))
    with gzip.open(trace, "rt") as file:
        assert json.load(file)["traceEvents"]
    found = document["profile"]
    assert found["shape"] == "12,3,2" and found["num_timed"] == 2
    assert sum(g["launches"] for g in found["groups"]) == found["launches"]
    assert document["environment"]["libraries"]["torch"]


def test_table_and_bad_input(capsys, fails, bytes_model, tmp_path):
    trace = tmp_path / "trace.json"
    assert main(argv(bytes_model, trace)) == 0
    printed = capsys.readouterr().out
    assert "attention" in printed and "idle" in printed and "trace.json" in printed
    assert "prompt,branches,trees" in fails(*argv(bytes_model, trace, "--shape", "12"))
    assert main(argv(bytes_model, trace, "--steps", "0")) == 2
    assert "at least 1 of each" in capsys.readouterr().err
