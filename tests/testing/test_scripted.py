"""The scripted run's own rules: protocol violations, steps, seeds, texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.core.seeds import child_seed
from ramify.search import (
    Action,
    Append,
    Appended,
    Close,
    Event,
    Expand,
    Finish,
    Finished,
    Prune,
    Score,
    Scored,
    Spawned,
    Started,
    TreeView,
)
from ramify.testing.scripted import ProtocolViolation, ScriptedRun, run_controller
from ramify.testing.scripted_model import table_model

MODEL = table_model(
    {"": {"a": 0.75, "b": 0.25}, "a": {"b": 0.5, "c": 0.5}, "ab": {"c": 1.0}, "a?": {"y": 1.0}}
)
ONE = SamplingParams(temperature=0.0, max_tokens=1)


class Plan:
    """Answers the i-th call with the i-th list of actions."""

    def __init__(self, *answers: Sequence[Action] | Callable[[Sequence[Event]], Sequence[Action]]):
        self.answers = list(answers)
        self.heard: list[Sequence[Event]] = []

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        self.heard.append(events)
        answer = self.answers[len(self.heard) - 1]
        return answer(events) if callable(answer) else answer


GROW = [Expand(node=0, k=1, params=ONE)]
LONG = [Expand(node=0, k=1, params=SamplingParams(max_tokens=3, ignore_eos=True))]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[Finish(), Prune(node=1)]], "no action after Finish"),
        ([[Expand(node=7, k=1, params=ONE)]], "a node of the tree"),
        ([[Expand(node=0, k=0, params=ONE)]], "k >= 1"),
        ([[Prune(node=0)]], "a node below the root"),
        ([GROW, [Prune(node=1), Score(node=1)]], "a node that is not pruned"),
        ([GROW, [Prune(node=1), Finish(outputs=[1])]], "complete outputs"),
        ([GROW, [Close(node=1), Expand(node=1, k=1, params=ONE)]], "a complete, open node"),
        ([GROW, [Score(node=1), Close(node=1)]], "an idle node"),
        ([LONG, [Expand(node=1, k=1, params=ONE)]], "a complete, open node"),
        ([LONG, [Finish(outputs=[1])]], "complete outputs"),
        ([GROW, [Finish(outputs=[1, 1])]], "distinct outputs"),
        ([GROW, [Finish(outputs=[5])]], "outputs of the tree"),
        ([[Score(node=0, labels=["ab"])]], "labels of one token"),
        ([[Append(node=0, tokens=())]], "at least one token"),
        ([[]], "neither"),
    ],
)
def test_violations_are_caught(answers: list[list[Action]], message: str) -> None:
    with pytest.raises(ProtocolViolation, match=message):
        run_controller(MODEL, Plan(*answers), "P")


def test_a_run_without_end_is_caught() -> None:
    class Restless:
        def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
            return [Score(node=0)]

    with pytest.raises(ProtocolViolation, match="within 9 steps"):
        run_controller(MODEL, Restless(), "P", max_steps=9)


def test_events_come_in_node_order_one_token_a_step() -> None:
    plan = Plan(
        [Expand(node=0, k=2, params=SamplingParams(temperature=0.0, max_tokens=2), tag="x")],
        [],
        [Score(node=2, suffix="?", labels=["y"], top=1), Append(node=1, tokens="cd", logprobs=1)],
        [Finish(outputs=[3])],
    )
    run = run_controller(MODEL, plan, "P")
    assert plan.heard[0] == [Started(root=0)]
    assert plan.heard[1] == [Spawned(parent=0, nodes=(1, 2), tag="x")]
    assert plan.heard[2] == [Finished(node=1, tag="x"), Finished(node=2, tag="x")]
    scored, appended = plan.heard[3]
    assert isinstance(scored, Scored)
    assert isinstance(appended, Appended)
    assert (scored.node, appended.node, appended.parent) == (2, 3, 1)
    assert scored.logprobs == (-math.inf,)
    assert [t.logprob for t in appended.logprobs] == [0.0, -math.inf]
    assert run.outputs == ["abcd"]
    assert [step.rows for step in run.steps] == [1, 2, 3]
    # prompt; one token each; the last tokens of both, and the appended ones
    assert [step.live_tokens for step in run.steps] == [1, 3, 7]


def test_a_reward_is_that_of_the_path_and_stays_with_the_node() -> None:
    plan = Plan(
        GROW,
        [Score(node=1, reward=True), Score(node=1, suffix="b", reward=True, tag="more")],
        [Finish(outputs=[1])],
    )
    run = run_controller(replace(MODEL, reward=lambda path: float(len(path))), plan, "P")
    assert plan.heard[2] == [Scored(node=1, value=2.0), Scored(node=1, value=3.0, tag="more")]
    assert run.tree[1].reward == 2.0
    with pytest.raises(ProtocolViolation, match="a model with rewards"):
        run_controller(MODEL, Plan([Score(node=0, reward=True)]), "P")


def test_pruned_nodes_bring_no_events() -> None:
    plan = Plan(
        [Expand(node=0, k=2, params=SamplingParams(max_tokens=3, ignore_eos=True))],
        [Prune(node=1)],
        [Finish(outputs=[2])],
    )
    run = run_controller(MODEL, plan, "P")
    assert plan.heard[2] == [Finished(node=2)]
    assert run.steps[-1].live_tokens == 3


def test_seeds_follow_the_path_and_sampling_the_seeds() -> None:
    params = SamplingParams(max_tokens=2)

    def grow(seed: int) -> ScriptedRun:
        plan = Plan(
            [Expand(node=0, k=2, params=params), Expand(node=0, k=1, params=params)],
            *([lambda events: []] * 1),
            [Finish()],
        )
        return run_controller(MODEL, plan, "P", seed=seed)

    run = grow(5)
    assert [run.tree[n].seed for n in (1, 2, 3)] == [child_seed(5, i) for i in range(3)]
    texts = [[n.text for n in grow(seed).tree] for seed in range(40)]
    assert texts == [[n.text for n in grow(seed).tree] for seed in range(40)]
    firsts = [text[1][0] for text in texts]
    assert 20 <= firsts.count("a") <= 38  # 0.75 of 40, within four standard deviations


@pytest.mark.parametrize(("include", "text"), [(True, "ab"), (False, "a")])
def test_stop_strings(include: bool, text: str) -> None:
    params = SamplingParams(
        temperature=0.0, max_tokens=9, stop="b", include_stop_str_in_output=include
    )
    run = run_controller(
        MODEL, Plan([Expand(node=0, k=1, params=params)], [], [Finish(outputs=[1])]), "P"
    )
    node = run.tree[1]
    assert (node.text, node.finish_reason, node.stop_reason) == (text, "stop", "b")
    assert node.cumulative_logprob == pytest.approx(math.log(0.75 * 0.5))


def test_min_tokens_and_end_token() -> None:
    params = SamplingParams(max_tokens=9, min_tokens=3, stop_token_ids=(), temperature=0.0)
    model = table_model({"": {"": 0.6, "a": 0.4}})
    run = run_controller(
        model, Plan([Expand(node=0, k=1, params=params)], [], [Finish(outputs=[1])]), "P"
    )
    assert run.tree[1].token_ids == [0, 0, 0]
    assert (run.tree[1].finish_reason, run.tree[1].stop_reason) == ("stop", 0)
    assert run.tree[1].text == ""


def test_encode_takes_the_longest_entry() -> None:
    assert MODEL.encode("ab\n") == (2, 3, 10)
    assert MODEL.encode((5, 6)) == (5, 6)
    with pytest.raises(InputError, match="entries of the vocabulary"):
        MODEL.encode("a!")
