"""Grammars on trees grown by hand: forks share a beginning, then each goes its own way."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ramify import LLM, InputError, NodeHandle, SamplingParams, StructuredOutput

SHAPE = "<[a-z]{4}:[0-9]{4}>"
REGEX = StructuredOutput(regex=SHAPE)


def rules(max_tokens: int = 40, structured: StructuredOutput | None = REGEX) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, seed=3, structured=structured)


@pytest.fixture
def root(llm: LLM) -> Iterator[NodeHandle]:
    opened = llm.tree([1, 60, 61], seed=5)
    yield opened
    opened.finish()


def test_branches_go_on_from_where_they_are(root: NodeHandle) -> None:
    """Several expansions, one below the other, spell one text; siblings share its beginning."""
    ended = set()
    for first in root.expand(3, rules(max_tokens=2)):
        assert first.finish_reason == "length"
        for second in first.expand(2, rules(max_tokens=3)):
            for last in second.expand(2, rules()):
                assert re.fullmatch(SHAPE, last.completion)
                assert last.completion.startswith(first.text + second.text)
                assert last.finish_reason == "stop"
                ended.add(last.completion)
    assert len(ended) > 6


def test_a_fork_in_the_middle_takes_the_state_of_its_tokens(root: NodeHandle) -> None:
    (whole,) = root.expand(1, rules())
    prompt, length = 3, len(whole.token_ids)
    texts = set()
    for at in range(prompt, prompt + length + 1):
        fork = whole.fork(at)
        (ended,) = fork.expand(1, rules())
        new = ended.completion
        if at == prompt + length:  # all of it: another text begins
            new = new.removeprefix(whole.completion)
        assert re.fullmatch(SHAPE, new)
        texts.add(new)
    assert len(texts) > 3


def test_behind_a_complete_text_another_begins(root: NodeHandle) -> None:
    """As a conversation has it: a call, its answer, the next call."""
    (call,) = root.expand(1, rules())
    answer = call.append(" 17 ")
    (second,) = answer.expand(1, rules())
    (third,) = second.expand(1, rules())
    assert re.fullmatch(f"{SHAPE} 17 {SHAPE}{SHAPE}", third.completion)
    assert re.fullmatch(SHAPE, second.text) and re.fullmatch(SHAPE, third.text)


def test_given_text_that_goes_on_with_the_grammar_is_a_part_of_it(root: NodeHandle) -> None:
    (begun,) = root.expand(1, rules(max_tokens=1))
    assert re.fullmatch("<[a-z]{0,4}", begun.completion)
    letters = 5 - len(begun.completion)
    given = begun.append("q" * letters + ":")
    (ended,) = given.expand(1, rules())
    assert re.fullmatch(SHAPE, ended.completion)
    strange = begun.append("!")  # no part of such a text
    (anew,) = strange.expand(1, rules())
    assert re.fullmatch(SHAPE, anew.text)


def test_another_grammar_begins_where_it_is_asked_for(root: NodeHandle) -> None:
    (begun,) = root.expand(1, rules(max_tokens=3))
    (other,) = begun.expand(1, rules(structured=StructuredOutput(choices=["yes", "no"])))
    assert other.text in ("yes", "no") and other.finish_reason == "stop"
    (free,) = begun.expand(1, rules(max_tokens=4, structured=None))
    assert not re.fullmatch("[a-z0-9:>]+", free.text)


def test_a_wrong_grammar_leaves_the_tree_as_it_was(root: NodeHandle) -> None:
    with pytest.raises(InputError, match="structured.regex"):
        root.expand(1, rules(structured=StructuredOutput(regex="(")))
    assert not root.children
    assert len(root.expand(2, rules())) == 2
