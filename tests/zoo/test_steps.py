"""What the tree search is told of each family."""

from __future__ import annotations

import pytest

from ramify.zoo import PROBLEMS
from ramify.zoo.steps import STEPS, SortPlan, check_part, checker_scorer, state_of
from ramify.zoo.tasks import TASKS, Problem, load_problems

PUZZLE = Problem(task="puzzle", prompt="puzzle 4 7 8 2 -> 24\n")


def test_every_family_has_steps():
    assert set(STEPS) == set(TASKS)


@pytest.mark.parametrize("task", sorted(PROBLEMS))
def test_reference_answers_are_recognised(task):
    for problem in load_problems(PROBLEMS[task]):
        value = checker_scorer(problem)(problem.prompt, problem.answer)
        assert value.solved and not value.prune


def test_a_plan_splits_digits_and_merges_in_the_words_of_the_tasks():
    plan = SortPlan(digits="3 1 2 9 0".split(), part_digits=2)
    assert plan.parts == ["sort 3 1\n", "sort 2 9\n", "sort 0\n"]
    assert plan.merge("1 3\n", "2 9\n") == "merge 1 3 | 2 9\n"
    assert check_part("merge 1 3 | 2 9\n", "1 2 3 9\n").solved
    wrong = check_part("sort 3 1\n", "3 1\n")
    assert not wrong.solved and wrong.score < 1


def test_beginnings_of_answers_are_never_cut():
    for problem in load_problems(PROBLEMS["puzzle"])[:5]:
        scorer = checker_scorer(problem)
        lines = problem.answer.splitlines(keepends=True)
        for end in range(1, len(lines)):
            value = scorer(problem.prompt, "".join(lines[:end]))
            assert not value.solved and not value.prune


@pytest.mark.parametrize(
    "text",
    ["4 * 7 = 27 left 2 8 27\n", "4 * 7 = 28 left 2 28\n", "9 - 7 = 2 left 2 2 4 8\n", "hello\n"],
)
def test_broken_rules_are_cut(text):
    value = checker_scorer(PUZZLE)(PUZZLE.prompt, text)
    assert value.prune and not value.solved


def test_states_are_the_numbers_left():
    state = state_of(PUZZLE)
    same = [
        "4 * 7 = 28 left 2 8 28\n8 / 2 = 4 left 4 28\n",
        "8 / 2 = 4 left 4 4 7\n7 * 4 = 28 left 4 28\n",
    ]
    assert state(same[0]) == state(same[1]) == ("28", "4")
    assert state("7 - 4 = 3 left 2 3 8\n") != state("8 - 7 = 1 left 1 2 4\n")
    # a line that breaks a rule must not stand in the way of one that arrives there by the rules
    assert state("9 * 9 = 3 left 2 3 8\n") != state("7 - 4 = 3 left 2 3 8\n")
    assert state_of(Problem(task="sort", prompt="sort 2 1\n")) is None
