"""Verdicts and the judge's arithmetic."""

from __future__ import annotations

import math

import pytest

from ramify.core.errors import ScorerError
from ramify.search.scorer import (
    PATH_PROBABILITY,
    REWARD,
    Judge,
    Value,
    as_value,
    values_of,
    with_reward,
)
from ramify.search.tree import LogicalTree

JUDGE = Judge(suffix="?", positive="y", negative="n")


def test_as_value_reads_numbers_and_values() -> None:
    assert as_value(0.25) == Value(score=0.25)
    assert as_value(1) == Value(score=1.0)
    verdict = Value(score=0.5, solved=True)
    assert as_value(verdict) is verdict


@pytest.mark.parametrize(("yes", "no", "value"), [(0.3, 0.1, 0.75), (0.0, 0.2, 0.0), (0.2, 0.0, 1)])
def test_judge_normalises_over_its_labels(yes: float, no: float, value: float) -> None:
    logprobs = [math.log(p) if p else -math.inf for p in (yes, no)]
    assert JUDGE.value(logprobs) == pytest.approx(value)


def test_judge_in_doubt() -> None:
    assert JUDGE.labels == ("y", "n")
    assert JUDGE.value([-math.inf, -math.inf]) == 0.5
    assert JUDGE.value([-800.0, -801.0]) == pytest.approx(1 / (1 + math.exp(-1)))


def test_scorers_see_what_stands_after_the_prompt_node() -> None:
    tree = LogicalTree([1], "root ", seed=0)
    asked, said = tree.add(0, seed=0), tree.add(1, seed=0)
    asked.text, said.text = "question ", "answer"
    asked.token_ids, said.token_ids = [5], [6, 7, 8]
    said.cumulative_logprob = 4 * math.log(0.5)
    seen: list[tuple[str, str]] = []

    def scorer(prompt: str, text: str) -> float:
        seen.append((prompt, text))
        return 0.5

    assert values_of(scorer, tree, [2]) == [Value(score=0.5)]
    values_of(scorer, tree, [2], prompt_node=1)
    assert seen == [("root ", "question answer"), ("root question ", "answer")]
    # four tokens below the root, of one half each in the geometric mean
    assert values_of(PATH_PROBABILITY, tree, [2])[0].score == pytest.approx(0.5)


def test_a_reward_ranks_what_a_checker_leaves_open() -> None:
    tree = LogicalTree([1], "root ", seed=0)
    for text in ("open", "wrong", "right"):
        node = tree.add(0, seed=0)
        node.text, node.reward = text, 0.25
    verdicts = {"wrong": Value(score=0.0, prune=True), "right": Value(score=1.0, solved=True)}

    def check(prompt: str, completion: str) -> Value:
        return verdicts.get(completion, Value(score=0.5))

    found = values_of(with_reward(check), tree, [1, 2, 3])
    assert found == [Value(score=0.25), verdicts["wrong"], verdicts["right"]]
    assert values_of(REWARD, tree, [1]) == [Value(score=0.25)]
    tree[1].reward = None
    with pytest.raises(ScorerError, match="reward of node 1: expected a value"):
        values_of(REWARD, tree, [1])
