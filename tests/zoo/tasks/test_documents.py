"""Documents: facts, references and what counts as an answer."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.zoo.tasks.base import Problem
from ramify.zoo.tasks.documents import Documents, draw_document
from ramify.zoo.training.vocab import build_tokenizer

TASK = Documents()
TEXT = (
    "documents\n"
    "passage 1 : color of otter is red . rain came and nobody spoke .\n"
    "passage 2 : color of lynx is that of otter . age of otter is 47 .\n"
)


def asks(question: str) -> Problem:
    return Problem(task="documents", prompt=f"{TEXT}ask {question} is")


@pytest.mark.parametrize(
    ("question", "answer"),
    [("color of otter", " red\n"), ("color of lynx", " red\n"), ("age of otter", "47")],
)
def test_right_answers(question: str, answer: str) -> None:
    assert TASK.check(asks(question), answer).solved


@pytest.mark.parametrize(
    "text", ["", " blue\n", " red blue\n", " red .\n", " that of otter\n", "RED"]
)
def test_wrong_answers(text: str) -> None:
    verdict = TASK.check(asks("color of lynx"), text)
    assert not verdict.solved
    assert "'red'" in verdict.reason


def test_partial_answers() -> None:
    problem = asks("color of lynx")
    # legal does not mean right: nothing here tells the answer
    assert TASK.check_partial(problem, " blu").legal
    assert TASK.check_partial(problem, "").legal
    assert not TASK.check_partial(problem, " oslo").legal
    assert not TASK.check_partial(problem, " blue\n").legal
    assert TASK.check_partial(problem, " red\n").solved
    assert TASK.check_partial(asks("age of otter"), " 4").legal
    assert not TASK.check_partial(asks("age of otter"), " red").legal


@pytest.mark.parametrize("question", ["color of crow", "age of lynx"])
def test_a_question_about_nothing_raises(question: str) -> None:
    with pytest.raises(ValueError, match="expected a fact"):
        TASK.check(asks(question), " red")


def test_a_prompt_without_question_raises() -> None:
    with pytest.raises(ValueError, match="at the end"):
        TASK.check(Problem(task="documents", prompt=TEXT), " red")


@pytest.mark.parametrize("hops", [1, 2])
def test_generated_problems_hop_as_asked(hops: int) -> None:
    rng = np.random.default_rng(hops)
    for _ in range(20):
        problem = TASK.generate(rng, hops=hops)
        attribute, _, thing, _ = problem.prompt.rsplit("ask ", 1)[1].split()
        lines = [x for x in problem.prompt.splitlines() if f" {attribute} of {thing} is " in x]
        assert len(lines) == 1
        assert (f" {attribute} of {thing} is that of " in lines[0]) == (hops == 2)
        assert TASK.check(problem, problem.answer).solved


def test_references_lead_to_direct_facts_of_other_passages() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        document = draw_document(rng, 800)
        lines = document.text().splitlines()
        for (attribute, thing), target in document.references.items():
            (here,) = [x for x in lines if f" {attribute} of {thing} is that of {target} ." in x]
            value = document.values[(attribute, target)]
            (there,) = [x for x in lines if f" {attribute} of {target} is {value} ." in x]
            assert here != there


@pytest.mark.parametrize("num_tokens", [100, 600, 3000])
def test_length_is_about_what_was_asked(num_tokens: int) -> None:
    prompt = TASK.generate(np.random.default_rng(0), num_tokens=num_tokens).prompt
    length = len(build_tokenizer().encode(prompt).ids)
    assert 0.75 * num_tokens < length < 1.3 * num_tokens + 20
    assert length < 4000
