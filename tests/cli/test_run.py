"""`ramify run` on a random model: the verdicts are the checker's, the trees and costs add up."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from ramify.cli.live import LiveTree
from ramify.cli.main import main
from ramify.cli.options import RunOptions
from ramify.cli.output import Output
from ramify.cli.problems import Job, jobs_of
from ramify.cli.setup import ALGORITHMS, search_of
from ramify.core.errors import InputError
from ramify.search import LogicalTree
from ramify.zoo.tasks import Problem, get_task

SMALL = ("--k", "2", "--width", "2", "--depth", "2", "--max-tokens", "4")


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "got"])
def test_every_algorithm_on_a_task_file(algorithm, run_json, bytes_model, puzzle_file):
    document = run_json(
        "run",
        "--model",
        bytes_model,
        "--task-file",
        str(puzzle_file),
        "--algorithm",
        algorithm,
        *SMALL,
        "--seed",
        "3",
    )
    assert [p["task"] for p in document["problems"]] == ["puzzle", "puzzle"]
    assert document["checked"] == 2
    for problem in document["problems"]:
        verdict = get_task("puzzle").check(
            Problem(task="puzzle", prompt=problem["prompt"]), problem["answer"]
        )
        assert problem["verdict"]["solved"] == verdict.solved
        assert problem["algorithm"] == algorithm
        assert problem["tree"][0]["parent"] is None
        assert problem["usage"]["computed_tokens"] > 0
    total = sum(p["usage"]["kv_bytes_read"] for p in document["problems"])
    assert document["usage"]["kv_bytes_read"] == total


def test_graph_of_thoughts_sorts_by_parts_and_nothing_else(run_json):
    document = run_json("run", "--task", "sort", "--skip", "1", "--algorithm", "got", "--k", "2")
    (problem,) = document["problems"]
    asked = problem["prompt"].split()[1:]
    parts = [n["text"].split()[1:] for n in problem["tree"] if n["text"].startswith("sort")]
    assert len(asked) > 8 and [digit for part in parts for digit in part] == asked
    assert all(len(part) <= 8 for part in parts)
    assert problem["verdict"]["solved"] == (problem["answer"].split() == sorted(asked))
    with pytest.raises(InputError, match="algorithm got: expected sort, got 'puzzle'"):
        puzzle = Problem(task="puzzle", prompt="puzzle 1 2 3 4 -> 10\n")
        search_of(Job(prompt=puzzle.prompt, problem=puzzle), RunOptions(algorithm="got"))


def test_prompts_default_to_best_of_n(run_json, bytes_model):
    document = run_json("run", "--model", bytes_model, "--prompt", "abc", *SMALL)
    (problem,) = document["problems"]
    assert problem["algorithm"] == "best_of_n" and problem["verdict"] is None
    outputs = [output["text"] for output in problem["outputs"]]
    assert problem["answer"] == outputs[0] and len(outputs) == 2
    assert problem["usage"]["kv_saving"] >= 1


def test_budget_is_kept(run_json, bytes_model, puzzle_file):
    document = run_json(
        "run",
        "--model",
        bytes_model,
        "--task-file",
        str(puzzle_file),
        "--count",
        "1",
        "--budget-tokens",
        "30",
        "--stop",
        "a",
        "--max-tokens",
        "6",
    )
    assert 0 < document["usage"]["generated_tokens"] <= 30


def test_a_model_without_the_judges_words_ranks_without_it(bytes_model, puzzle_file, capsys):
    argv = ["run", "--model", bytes_model, "--task-file", str(puzzle_file), "--count", "1", *SMALL]
    assert main(argv) == 0
    assert "ranking without a judge: label ' yes'" in capsys.readouterr().err
    assert main([*argv, "--no-judge"]) == 0
    assert capsys.readouterr().err == ""


def test_plain_text_shows_tree_verdict_and_cost(bytes_model, puzzle_file, capsys):
    argv = ["run", "--model", bytes_model, "--task-file", str(puzzle_file), *SMALL]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "[1/2] puzzle 4 7 8 2 -> 24 by tot" in printed
    assert "└─" in printed and "checker: " in printed and "per branch" in printed
    assert "of 2" in printed
    assert main([*argv, "--quiet"]) == 0
    quiet = capsys.readouterr().out
    assert "└─" not in quiet and "checker: " in quiet


def test_live_tree_draws_on_a_terminal_and_nowhere_else():
    tree = LogicalTree([1, 2], "the prompt", 0)
    tree.add(0, seed=1).text = "a branch"
    for is_terminal in (True, False):
        file = io.StringIO()
        console = Console(file=file, force_terminal=is_terminal, width=90)
        with LiveTree(Output(False, console), "title", height=10) as live:
            live.on_step(tree)
        assert ("a branch" in file.getvalue()) == is_terminal


def test_bundled_tasks_come_first_then_drawn_ones():
    jobs = jobs_of(RunOptions(task="merge", count=3, seed=1))
    assert len({job.prompt for job in jobs}) == 3
    assert all(job.problem.task == "merge" for job in jobs)
    assert jobs == jobs_of(RunOptions(task="merge", count=3, seed=1))
    assert jobs[1:] == jobs_of(RunOptions(task="merge", count=2, skip=1, seed=1))


def test_a_task_file_may_be_taken_in_parts(puzzle_file, fails):
    jobs = jobs_of(RunOptions(task_file=puzzle_file, skip=1))
    assert [job.prompt for job in jobs] == ["puzzle 1 2 3 4 -> 10\n"]
    line = fails("run", "--task-file", str(puzzle_file), "--skip", "2")
    assert "expected a problem after the first 2, got none" in line


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "prompt, task, task_file: expected exactly one of them, got none"),
        (("--prompt", "a", "--task", "puzzle"), "got several"),
        (("--task", "chess"), "task: expected one of puzzle"),
        (("--prompt", "a", "--algorithm", "magic"), "algorithm: expected one of tot"),
        (("--task", "merge", "--count", "0"), "count: expected at least 1, got 0"),
        (("--task", "merge", "--skip", "-1"), "skip: expected at least 0, got -1"),
        (("--task-file", "nowhere.jsonl"), "No such file"),
        (("--prompt", "a", "--k", "-1"), "n: expected an int >= 1, got -1"),
        (("--prompt", "a", "--k", "0"), "n: expected an int >= 1, got 0"),
        (("--task", "merge", "--width", "0"), "width: expected"),
        (("--prompt", "a", "--temperature", "-1"), "temperature: expected"),
        (("--prompt", "a", "--budget-tokens", "0"), "budget.tokens: expected an int >= 1"),
        (("--prompt", "a", "--height", "1"), "height: expected at least 3"),
    ],
)
def test_bad_input(argv, says, fails, bytes_model):
    assert says in fails("run", "--model", bytes_model, *argv)


def test_broken_task_file(fails, bytes_model, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"task": "puzzle"}\n')
    line = fails("run", "--model", bytes_model, "--task-file", str(path))
    assert "line 1: prompt: expected a string" in line


def test_flags_override_defaults():
    options = RunOptions(prompt=("a",), temperature=0.25, stop=(r"\n",), max_tokens=9, k=(3,))
    params = search_of(Job(prompt="a"), options).arguments["params"]
    assert (params.temperature, params.stop, params.max_tokens, params.n) == (0.25, ("\n",), 9, 3)
    with pytest.raises(InputError, match="max_tokens"):
        search_of(Job(prompt="a"), RunOptions(prompt=("a",), max_tokens=-2))


def test_a_reward_model_ranks_prompts_and_steps(run_json, bytes_model, puzzle_file, fails):
    reward = json.dumps({"model": bytes_model, "labels": ["a", "b"], "suffix": "?"})
    common = ["run", "--model", bytes_model, "--num-slots", "2000", "--reward-model", reward]
    document = run_json(*common, "--prompt", "abc", "--k", "3", "--max-tokens", "4")
    (problem,) = document["problems"]
    scores = [node["score"] for node in problem["tree"] if node["parent"] is not None]
    assert len(scores) == 3 and all(0 < score < 1 for score in scores)
    assert problem["usage"]["reward_tokens"] >= 3 + 3 * 4
    steps = run_json(*common, "--task-file", str(puzzle_file), *SMALL, "--algorithm", "rebase")
    assert all(p["usage"]["reward_tokens"] > 0 for p in steps["problems"])
    assert "algorithm: expected one of" in fails(*common, "--prompt", "a", "--algorithm", "beam")
