"""LeanAttention's tables: means by context, ragged batches apart, losses counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ramify.bench.attention.check import error_ratio, make_oracle
from ramify.bench.attention.lean import FIXED, LEAN, UNCUT, tables
from ramify.bench.attention.problem import make_problem
from ramify.bench.attention.providers import open_provider
from ramify.bench.attention.run import Settings, bench_attention
from ramify.bench.attention.shapes import Case, Heads, parse_levels

SMALL = Heads(num_q_heads=4, num_kv_heads=2, head_dim=16)


@pytest.fixture
def rows():
    settings = Settings(device=torch.device("cpu"), dtype=torch.float32, repeats=2)
    case = Case(suite="lean", tree=parse_levels("1x64"), heads=SMALL)
    (row,) = bench_attention([case], ["ramify:node"], settings)
    times = [  # shape, context, lean, fixed, uncut
        ("1x1024", 1024, 10.0, 8.0, 8.0),
        ("4x1024", 1024, 10.0, 32.0, None),
        ("1x65536", 65536, 10.0, 20.0, 80.0),
        ("4x65536~0.1", 65536, 10.0, 30.0, 90.0),
    ]
    return [
        replace(
            row,
            shape=shape,
            num_rows=1,
            unique_tokens=context,
            provider=provider,
            p50_us=us,
            pct_of_floor=50.0,
        )
        for shape, context, *measured in times
        for provider, us in zip((LEAN, FIXED, UNCUT), measured, strict=True)
    ]


def test_means_by_context(rows):
    lines = tables(rows)["lean-contexts"].splitlines()[2:]
    # sqrt(0.8 * 3.2) over the fixed split, one loss; no split was timed once
    assert lines[0] == "| 1k | 2 | 1.60x (0.80 to 3.20) | 0.80x (0.80 to 0.80) | – | 1 |"
    assert lines[1].startswith("| 64k | 1 | 2.00x (2.00 to 2.00) | 8.00x")
    assert lines[2].startswith("| ragged batches | 1 | 3.00x")
    assert lines[3].startswith("| all | 4 |")


def test_every_case_has_a_line(rows):
    lines = tables(rows)["lean-cases"].splitlines()[2:]
    assert lines[0] == "| 4/2, 1x1024 | 10.0 | 50 | 8.0 (0.80x) | 8.0 (0.80x) | – |"
    assert len(lines) == 4


def test_other_suites_have_no_place(rows):
    assert tables([replace(row, suite="flat") for row in rows]) == {}
    assert tables([row for row in rows if row.provider != LEAN]) == {}


def test_uncut_reads_whole_paths(draft_case):
    problem = make_problem(draft_case, device=torch.device("cpu"), dtype=torch.float32)
    prepared = open_provider(UNCUT).prepare(problem)
    prepared.plan()
    assert error_ratio(prepared.run(), make_oracle(problem)) <= 1
    assert prepared.facts().partial_bytes == 0
