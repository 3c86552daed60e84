"""The evaluation: splits that share nothing, intervals, and rows that count what was done."""

from __future__ import annotations

import json

import pytest

from ramify import LLM
from ramify.zoo.evaluate import Options, evaluate, heldout_problems, main, markdown, wilson


def numbers_and_target(problem):
    return tuple(sorted(problem.meta["numbers"])), problem.meta["target"]


def test_splits_share_no_problem():
    tune, report = (
        {numbers_and_target(p) for p in heldout_problems(Options(count=150, split=split, seed=1))}
        for split in ("tune", "report")
    )
    assert len(tune) == len(report) == 150
    assert not tune & report


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (185, 200, 0.880, 0.954),
    ],
)
def test_wilson_against_published_values(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-4)


def test_rows_of_the_bundled_model():
    options = Options(count=4, budget=60, seed=3)
    problems = heldout_problems(options)
    llm = LLM("ramify-tiny", num_slots=8192)
    rows = [evaluate(llm, problems, m, options) for m in ("greedy", "best_of_n", "beam", "tot")]
    for row in rows:
        assert row.problems == 4 and 0 <= row.solved <= 4
        assert 0 <= row.low <= row.solved / 4 <= row.high <= 1
        assert row.generated_tokens > 0
    greedy, best_of_n, _, tree = rows
    assert best_of_n.generated_tokens <= 60 and tree.generated_tokens <= 60
    # the last token of a finished branch is never computed; the judge's questions are
    assert greedy.computed_tokens < greedy.generated_tokens
    assert len(markdown(rows).splitlines()) == 2 + len(rows)
    assert not llm.engine.live.requests


def test_command_writes_what_it_prints(tmp_path, capsys):
    path = tmp_path / "rows.json"
    argv = ["--task", "sort", "--count", "2", "--methods", "greedy", "--output", str(path)]
    assert main(argv) == 0
    document = json.loads(path.read_text())
    assert [row["method"] for row in document["rows"]] == ["greedy"]
    assert document["options"]["task"] == "sort"
    assert capsys.readouterr().out.count("| sort |") == 1
