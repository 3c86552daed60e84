"""The evaluation: splits that share nothing, intervals, and rows that count what was done."""

from __future__ import annotations

import json

import pytest

from ramify import LLM, InputError
from ramify.zoo.evaluate import Options, heldout_problems, main, make_rows, markdown, solve
from ramify.zoo.methods import METHODS


def numbers_and_target(problem):
    return tuple(sorted(problem.meta["numbers"])), problem.meta["target"]


def test_splits_share_no_problem():
    tune, report = (
        {numbers_and_target(p) for p in heldout_problems(Options(count=150, split=split, seed=1))}
        for split in ("tune", "report")
    )
    assert len(tune) == len(report) == 150
    assert not tune & report


def test_rows_of_the_bundled_model():
    options = Options(count=4, budget=60, seed=3)
    problems = heldout_problems(options)
    llm = LLM("ramify-tiny", num_slots=8192)
    outcomes = {name: solve(llm, problems, name, options) for name in (*METHODS, "tot_no_judge")}
    rows = make_rows("puzzle", outcomes)
    assert [row.method for row in rows] == [*METHODS, "tot_no_judge"]
    for row in rows:
        assert row.problems == 4 and row.solved == sum(outcomes[row.method].solved)
        assert 0 <= row.low <= row.solved / 4 <= row.high <= 1
        assert row.generated_tokens > 0
        # beam search knows no budget
        assert row.generated_tokens <= 60 or row.method == "beam"
    by_name = {row.method: row for row in rows}
    # the last token of a finished branch is never computed; the judge's questions are
    assert by_name["greedy"].computed_tokens < by_name["greedy"].generated_tokens
    assert by_name["best_of_n"].ahead is None
    gap = by_name["tot"].solved - by_name["best_of_n"].solved
    assert by_name["tot"].ahead == gap / 4
    assert len(markdown(rows).splitlines()) == 2 + len(rows)
    assert not llm.engine.live.requests


def test_longer_lists_have_room_for_their_answer():
    options = Options(task="sort", count=1, size=36, budget=50)
    (problem,) = heldout_problems(options)
    assert problem.meta["size"] == 36
    llm = LLM("ramify-tiny", num_slots=4096)
    outcome = solve(llm, [problem], "greedy", options)
    assert 37 <= outcome.generated_tokens <= 44


def test_unknown_method():
    options = Options(count=1)
    llm = LLM("ramify-tiny", num_slots=64)
    with pytest.raises(InputError, match="method: expected one of greedy"):
        solve(llm, heldout_problems(options), "astar", options)


def test_command_writes_what_it_prints(tmp_path, capsys):
    path = tmp_path / "rows.json"
    argv = ["--task", "sort", "--count", "2", "--methods", "greedy", "--output", str(path)]
    assert main(argv) == 0
    document = json.loads(path.read_text())
    assert [row["method"] for row in document["rows"]] == ["greedy"]
    assert document["options"]["task"] == "sort"
    assert capsys.readouterr().out.count("| sort |") == 1
