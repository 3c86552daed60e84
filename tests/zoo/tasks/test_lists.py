"""Sorting and merging: the one right answer and everything that is not it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.zoo.tasks.base import Problem
from ramify.zoo.tasks.lists import Merge, Sort

DIGITS = st.lists(st.integers(0, 9), min_size=1, max_size=32)
SORT = Sort()


def problem_of(digits: list[int]) -> Problem:
    return Problem(task="sort", prompt=f"sort {' '.join(map(str, digits))}\n")


@settings(max_examples=60, deadline=None)
@given(DIGITS, DIGITS)
def test_solved_exactly_when_the_digits_are_the_sorted_prompt(
    digits: list[int], answer: list[int]
) -> None:
    for candidate in (answer, sorted(answer), digits, sorted(digits)):
        verdict = SORT.check(problem_of(digits), " ".join(map(str, candidate)) + "\n")
        assert verdict.solved == (candidate == sorted(digits))
        assert (verdict.score == 1) == verdict.solved
        assert 0 <= verdict.score <= 1


@settings(max_examples=40, deadline=None)
@given(DIGITS, st.integers(0, 32))
def test_every_beginning_of_the_answer_is_legal(digits: list[int], length: int) -> None:
    words = " ".join(map(str, sorted(digits)[:length]))
    verdict = SORT.check_partial(problem_of(digits), words)
    assert verdict.legal
    assert not verdict.solved


@pytest.mark.parametrize("text", ["3 1", "1 1", "9", "1 x", "1  2", "12", "1,2", "2", "1 3"])
def test_partial_answers_that_cannot_be_repaired(text: str) -> None:
    assert not SORT.check_partial(problem_of([3, 1, 2]), text).legal


@pytest.mark.parametrize("text", ["", "1 2\n", "1 2 3 3\n", "3 2 1\n", "1 2 3 done", "1 2 ３"])
def test_finished_answers_that_are_wrong(text: str) -> None:
    assert not SORT.check(problem_of([3, 1, 2]), text).solved


@pytest.mark.parametrize("task", [Sort(), Merge()], ids=["sort", "merge"])
@pytest.mark.parametrize("size", [2, 8, 32])
def test_generated_problems(task: Sort | Merge, size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(10):
        problem = task.generate(rng, size=size)
        assert problem.task == task.name
        assert len(problem.answer.split()) == size
        assert task.check(problem, problem.answer).solved
        assert task.check_partial(problem, problem.answer).solved


def test_merge_gets_two_sorted_lists() -> None:
    prompt = Merge().generate(np.random.default_rng(0)).prompt
    for part in prompt.removeprefix("merge ").strip().split(" | "):
        assert part.split() == sorted(part.split())


def test_foreign_prompt_raises() -> None:
    with pytest.raises(ValueError, match="expected 'sort"):
        SORT.check(Problem(task="sort", prompt="puzzle 1 2 3 4 -> 5\n"), "1\n")
