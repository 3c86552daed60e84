"""Held-out problems never appear in training, family by family."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ramify.zoo import PROBLEMS
from ramify.zoo.tasks import TASKS, load_problems
from ramify.zoo.tasks import puzzle_moves as moves
from ramify.zoo.tasks.documents import is_heldout_fact
from ramify.zoo.tasks.lists import is_heldout_list
from ramify.zoo.tasks.puzzle import parse_prompt
from ramify.zoo.tasks.split import is_heldout, mix
from ramify.zoo.training.document_data import draw_documents
from ramify.zoo.training.list_data import draw_lists
from ramify.zoo.training.puzzle_data import PuzzleData
from ramify.zoo.training.trees import Trees
from ramify.zoo.training.vocab import build_tokenizer


def puzzle_is_heldout(prompt: str) -> bool:
    numbers, target = parse_prompt(prompt)
    key = moves.problem_key(np.array([sorted(numbers)]), np.array([target]))
    return bool(is_heldout(key)[0])


def list_is_heldout(prompt: str) -> bool:
    left, _, right = prompt.split(" ", 1)[1].partition("|")
    digits = [int(word) for word in (left + right).split()]
    return is_heldout_list(digits, len(left.split()) if right else 0)


def document_is_heldout(prompt: str) -> bool:
    match = re.search(r"passage 1 : (\w+) of (\w+) is (\w+) \.", prompt)
    assert match is not None
    return is_heldout_fact((match[1], match[2]), match[3])


SIDE = {
    "puzzle": puzzle_is_heldout,
    "sort": list_is_heldout,
    "merge": list_is_heldout,
    "documents": document_is_heldout,
}


def prompts_of(trees: Trees) -> list[str]:
    """The text of every tree up to its first learned token."""
    tokenizer = build_tokenizer()
    starts, ends = trees.bounds[:-1], trees.bounds[1:]
    return [
        tokenizer.decode(trees.tokens[a:b][trees.ends[a:b] == b - a].tolist())
        for a, b in zip(starts, ends, strict=True)
    ]


def test_hash_is_splitmix64() -> None:
    # the first two outputs of splitmix64 seeded with 1234567, as published with the generator
    state = 1234567
    step = 0x9E3779B97F4A7C15
    keys = np.array([state, (state + step) % 2**64], dtype=np.uint64)
    assert mix(keys).tolist() == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("heldout", [True, False])
def test_generators_stay_on_their_side(name: str, heldout: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        prompt = TASKS[name].generate(rng, heldout=heldout).prompt
        assert SIDE[name](prompt) == heldout


def test_training_puzzles_are_not_held_out() -> None:
    data = PuzzleData(max_number=9)
    keys = moves.problem_key(data.numbers[data.state], data.target)
    assert len(keys) > 5000
    assert not is_heldout(keys).any()


def test_unsolvable_training_puzzles_are_not_held_out() -> None:
    trees = PuzzleData(max_number=9).draw_unsolvable(np.random.default_rng(1), 300)
    prompts = [prompt.split("\n")[0] + "\n" for prompt in prompts_of(trees)]
    assert len(prompts) == 300
    assert not any(puzzle_is_heldout(prompt) for prompt in prompts)


def test_training_lists_are_not_held_out() -> None:
    prompts = [p.split("\n")[0] for p in prompts_of(draw_lists(np.random.default_rng(2), 400))]
    assert not any(list_is_heldout(prompt) for prompt in prompts)


def test_training_documents_are_not_held_out() -> None:
    trees = draw_documents(np.random.default_rng(3), 30_000, 4096, short=True)
    prompts = prompts_of(trees)
    assert len(prompts) > 50
    assert not any(document_is_heldout(prompt) for prompt in prompts)


@pytest.mark.parametrize("family", PROBLEMS)
def test_bundled_problems_are_held_out(family: str) -> None:
    for problem in load_problems(PROBLEMS[family]):
        assert SIDE[problem.task](problem.prompt)
