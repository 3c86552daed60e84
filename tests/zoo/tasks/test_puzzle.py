"""The puzzle's rules, against a brute force of our own and against hostile answers."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.zoo.tasks import puzzle_moves as moves
from ramify.zoo.tasks.base import Problem
from ramify.zoo.tasks.puzzle import Puzzle, derivation, parse_prompt, prompt_of

TASK = Puzzle()
PROBLEM = Problem(task="puzzle", prompt="puzzle 4 7 8 2 -> 24\n")
SOLUTION = "8 / 2 = 4 left 4 4 7\n7 * 4 = 28 left 4 28\n28 - 4 = 24 left 24\n"
DEAD_END = "7 - 4 = 3 left 2 3 8\n8 * 3 = 24 left 2 24\n24 / 2 = 12 left 12\n"
OVERSHOT = "8 * 7 = 56 left 2 4 56\n56 - 4 = 52 left 2 52\n52 / 2 = 26 left 26\n"


def reachable(numbers: list[int]) -> set[int]:
    """Every last number, by plain recursion over ordered pairs and exact fractions."""
    if len(numbers) == 1:
        return set(numbers)
    found: set[int] = set()
    for i, j in permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [x for k, x in enumerate(numbers) if k not in (i, j)]
        values = [Fraction(a + b), Fraction(a - b), Fraction(a * b)]
        values += [Fraction(a, b)] if b else []
        for value in values:
            if value.denominator == 1 and 0 <= value <= moves.MAX_VALUE:
                found |= reachable([*rest, int(value)])
    return found


@pytest.mark.parametrize("numbers", [[1, 1, 2, 3], [5, 5, 5, 5], [3, 8, 13, 20], [1, 7, 19, 20]])
def test_move_table_reaches_what_brute_force_reaches(numbers: list[int]) -> None:
    finals = moves.final_values(np.array([numbers]))
    assert set(finals[finals >= 0].tolist()) == reachable(numbers)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=4, max_size=4), st.integers(0, 1151))
def test_every_legal_leaf_is_a_derivation_of_its_value(numbers: list[int], leaf: int) -> None:
    numbers.sort()
    value = int(moves.final_values(np.array([numbers])).reshape(-1)[leaf])
    if value < 0:
        return
    text = derivation(numbers, leaf)
    problem = Problem(task="puzzle", prompt=prompt_of(numbers, value))
    assert TASK.check(problem, text).solved
    assert TASK.check_partial(problem, text).solved
    elsewhere = Problem(task="puzzle", prompt=prompt_of(numbers, (value + 1) % 1000))
    verdict = TASK.check(elsewhere, text)
    assert not verdict.solved
    assert not verdict.legal


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.characters(codec="utf-8"))
def test_no_edit_of_one_character_fools_the_checker(seed: int, at: int, char: str) -> None:
    """An edited answer counts only if it is still a right derivation: then every number agrees."""
    problem = TASK.generate(np.random.default_rng(seed % 50))
    at %= len(problem.answer)
    edited = problem.answer[:at] + char + problem.answer[at + 1 :]
    if TASK.check(problem, edited).solved:
        assert edited.split() == problem.answer.split() or recompute(problem, edited)


def recompute(problem: Problem, text: str) -> bool:
    """A second, cruder reading of an answer."""
    numbers, target = parse_prompt(problem.prompt)
    state = sorted(numbers)
    for line in text.strip().split("\n"):
        a, op, b, _, result, _, *left = line.split(" ")
        state.remove(int(a))
        state.remove(int(b))
        value = eval(f"{int(a)} {op} {int(b)}")
        assert value == int(result)
        state = sorted([*state, int(value)])
        assert state == sorted(map(int, left))
    return state == [target]


@pytest.mark.parametrize(
    "text",
    [
        SOLUTION,
        SOLUTION.rstrip(),
        "8 / 2 = 4 left 7 4 4\n4 * 7 = 28 left 28 4\n28 - 4 = 24 left 24\n",  # another order
        "7 - 4 = 3 left 8 2 3\n3 - 2 = 1 left 1 8\n1 * 8 = 8 left 8\n",  # and a wrong one
    ],
)
def test_any_right_derivation_counts(text: str) -> None:
    assert TASK.check(PROBLEM, text).solved == (" = 24 " in text)


def test_generated_answers_are_right_and_prompts_are_shuffled() -> None:
    rng = np.random.default_rng(7)
    problems = [TASK.generate(rng) for _ in range(20)]
    assert all(TASK.check(p, p.answer).solved for p in problems)
    assert any(p.meta["numbers"] != sorted(p.meta["numbers"]) for p in problems)
    assert len({p.meta["target"] for p in problems}) > 10


def test_max_winning_bounds_the_winning_first_moves() -> None:
    problem = TASK.generate(np.random.default_rng(3), max_winning=1)
    finals = moves.final_values(np.array([sorted(problem.meta["numbers"])]))[0]
    assert (finals == problem.meta["target"]).any(axis=(1, 2)).sum() == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "4 numbers left"),
        ("8 * 3 = 24 left 24\n", "not both among"),  # 3 is not there
        ("8 + 8 = 16 left 2 4 7 16\n", "not both among"),  # 8 is there once
        ("8 * 7 = 57 left 2 4 57\n", "is not 57"),
        ("7 - 8 = 1 left 1 2 4\n", "is not 1"),
        ("7 / 2 = 3 left 3 4 8\n", "is not 3"),
        ("8 - 7 = 1 left 1 2\n", "left: expected"),  # a number was dropped
        ("8 - 7 = 1 left 1 2 4 24\n", "left: expected"),  # a number was smuggled in
        ("8 - 7 = 1 left 2 2 4\n", "left: expected"),
        ("24\n", "expected 'a op b"),
        ("８ - 7 = 1 left 1 2 4\n", "expected 'a op b"),  # a digit of another script
        ("8 - 7 = 1 left 1 2 4 \n4 - 2 = 2 left 1 2\n", "expected 'a op b"),
        (DEAD_END, "ended at 12"),
        (OVERSHOT, "ended at 26"),
        (DEAD_END + "12 + 12 = 24 left 24\n", "nothing is left"),
    ],
)
def test_wrong_answers_say_why(text: str, reason: str) -> None:
    verdict = TASK.check(PROBLEM, text)
    assert not verdict.solved
    assert verdict.score < 1
    assert reason in verdict.reason


def test_result_beyond_the_limit_is_illegal() -> None:
    problem = Problem(task="puzzle", prompt="puzzle 20 20 20 20 -> 20\n")
    text = "20 * 20 = 400 left 20 20 400\n400 * 20 = 8000 left 20 8000\n"
    assert not TASK.check_partial(problem, text).legal


def test_division_by_zero_is_illegal() -> None:
    problem = Problem(task="puzzle", prompt="puzzle 3 3 5 2 -> 10\n")
    text = "3 - 3 = 0 left 0 2 5\n5 / 0 = 0 left 0 2\n"
    assert not TASK.check_partial(problem, text).legal


def test_partial_check_looks_at_finished_lines_only_and_never_ahead() -> None:
    first = "8 * 7 = 56 left 2 4 56\n"
    for text in ("", first, first + "56 + nonsense"):
        verdict = TASK.check_partial(PROBLEM, text)
        assert verdict.legal
        assert not verdict.solved
    # a dead end by search, legal by the rules
    ones = Problem(task="puzzle", prompt="puzzle 1 1 1 1 -> 99\n")
    assert TASK.check_partial(ones, "1 + 1 = 2 left 1 1 2\n").legal


def test_scores_grow_with_the_lines() -> None:
    lines = DEAD_END.splitlines(keepends=True)
    scores = [TASK.check_partial(PROBLEM, "".join(lines[:n])).score for n in range(3)]
    assert scores == sorted(scores)
    assert scores[0] == 0
    assert scores[2] < 1


@pytest.mark.parametrize("prompt", ["", "puzzle -> 24\n", "puzzle 1 2 3 4\n", "sort 1 2\n"])
def test_foreign_prompts_raise(prompt: str) -> None:
    with pytest.raises(ValueError, match="expected 'puzzle"):
        TASK.check(Problem(task="puzzle", prompt=prompt), SOLUTION)
