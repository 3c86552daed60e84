"""Problem files and the registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ramify.core.errors import InputError
from ramify.zoo import PROBLEMS
from ramify.zoo.tasks import TASKS, dump_problems, get_task, load_problems


def test_dump_and_load_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    problems = [task.generate(rng) for task in TASKS.values() for _ in range(3)]
    dump_problems(problems, tmp_path / "problems.jsonl")
    assert load_problems(tmp_path / "problems.jsonl") == problems


def test_task_and_prompt_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('\n{"task": "puzzle", "prompt": "puzzle 1 2 3 4 -> 24\\n"}\n\n')
    (problem,) = load_problems(path)
    assert problem.answer == ""
    assert not get_task(problem.task).check(problem, "").solved


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: expected a JSON object"),
        ("[1]", "line 2: expected a JSON object, got list"),
        ('{"prompt": "x"}', "task: expected a string, got None"),
        ('{"task": "sort", "prompt": 3}', "prompt: expected a string, got 3"),
        ('{"task": "chess", "prompt": "x"}', "expected one of puzzle, sort"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"task": "sort", "prompt": "sort 1\\n"}}\n{line}\n')
    with pytest.raises(InputError, match=says):
        load_problems(path)


@pytest.mark.parametrize("family", PROBLEMS)
def test_bundled_problems_are_solved_by_their_answers(family: str) -> None:
    problems = load_problems(PROBLEMS[family])
    assert len(problems) >= 10
    assert len({problem.prompt for problem in problems}) == len(problems)
    for problem in problems:
        assert get_task(problem.task).check(problem, problem.answer).solved


@pytest.mark.parametrize("name", TASKS)
def test_generators_are_seeded(name: str) -> None:
    first, again, other = (TASKS[name].generate(np.random.default_rng(s)) for s in (4, 4, 5))
    assert first == again
    assert first != other
    assert first.task == name
