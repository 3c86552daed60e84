"""`ramify info`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import ramify
from ramify.cli.main import main


def test_json_names_versions_backends_and_reason(run_json):
    document = run_json("info")
    assert document["environment"]["ramify"] == ramify.__version__
    assert document["environment"]["libraries"]["torch"] == torch.__version__
    assert document["attention"]["chosen"] == "cpu"
    assert document["attention"]["reason"]
    assert document["attention"]["backends"]["reference"] == "available"
    assert document["attention"]["backends"]["triton"].startswith("unavailable: ")
    assert "model" not in document


def test_facts_of_a_model(run_json, bytes_model):
    facts = run_json("info", "--model", bytes_model)["model"]
    assert facts["architecture"] == "LlamaForCausalLM"
    assert facts["heads"] == "4/2 x 16"
    assert facts["kv_bytes_per_token_float32"] == 2 * 2 * 2 * 16 * 4


def test_text_and_bad_backend(capsys, fails):
    assert main(["info"]) == 0
    assert "auto: the device is a CPU" in capsys.readouterr().out
    assert "triton" in fails("info", "--backend", "triton")


def test_what_a_start_takes(run_json, bytes_model, fails):
    start = run_json("info", "--model", bytes_model, "--start")["start"]
    assert start["total_s"] > 0 and start["num_slots"] > 0
    assert start["kv_pool_bytes"] == start["num_slots"] * 2 * 2 * 2 * 16 * 4
    assert "--model" in fails("info", "--start")


def test_a_dummy_is_made_for_the_report_and_gone_after_it(run_json, fails):
    def left():
        return set(Path(tempfile.gettempdir()).glob("ramify-dummy-*"))

    before = left()
    document = run_json("info", "--model", "dummy", "--start")
    assert document["model"]["name"] == "dummy" and document["model"]["weight_bytes"] == 0
    assert document["start"]["num_slots"] > 0
    assert left() <= before
    assert "dummy:none" in fails("info", "--model", "dummy:none")
