"""Beam steps: rows by width, and beams that are transformers' own."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from ramify.bench.beam import BeamBench, bench_beams
from ramify.bench.rows import read_rows_of
from ramify.bench.step_rows import BeamRow
from ramify.cli.main import main
from ramify.testing.models import save_tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path)
    return str(path)


def beam_bench(model, num_slots, **more):
    settings = {"model": model, "device": "cpu", "dtype": "auto", "load_format": "auto"}
    settings |= {"prefix_cache": False, "num_slots": num_slots}
    return BeamBench(settings=settings, model_name="tiny", repeats=1, **more)


def test_widths_and_the_peer(model):
    bench = beam_bench(
        model, 400, prompt_tokens=30, beam_widths=[2, 5], new_tokens=6, peers=["transformers"]
    )
    rows = bench_beams(bench)
    assert [(row.provider, row.beam_width) for row in rows] == [
        ("ramify", 2),
        ("ramify", 5),
        ("transformers", 2),
        ("transformers", 5),
    ]
    assert [row.are_beams_equal for row in rows] == [None, None, True, True]
    assert len({row.floor_ms for row in rows}) == 1
    assert all(row.first_token_ms > 0 and row.reason is None for row in rows)


def test_too_small_a_pool_gives_a_row_with_its_reason(model):
    rows = bench_beams(beam_bench(model, 40, prompt_tokens=30, beam_widths=[8], new_tokens=20))
    assert rows[0].step_ms is None and "slots" in rows[0].reason


def test_command(model, capsys, tmp_path):
    output = tmp_path / "rows.jsonl"
    argv = ["bench", "beam", "--model", model, "--device", "cpu", "--prompt-tokens", "9"]
    argv += ["--beam-width", "2", "3", "--new-tokens", "3", "--repeats", "1"]
    assert main([*argv, "--output", str(output), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"]
    assert all(set(row) == {f.name for f in fields(BeamRow)} for row in printed)
    assert [row.beam_width for row in read_rows_of(output, BeamRow, "beam")] == [2, 3]
    assert main(argv) == 0
    assert "step ms" in capsys.readouterr().out
    assert main([*argv, "--beam-width", "0"]) == 2
    assert "beam_width: expected at least 1" in capsys.readouterr().err
