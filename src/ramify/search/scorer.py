"""How candidates are valued: by a scorer outside the model, or by asking the model itself.

A scorer is a callable on (prompt, completion). Where more is needed, it is a `BatchScorer`, which
gets all texts that ended in one step at once, or a `NodeScorer`, which sees the tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

from ramify.core.errors import InputError, ScorerError, expected_got
from ramify.search.tree import TreeView


@dataclass(frozen=True, kw_only=True)
class Value:
    """A scorer's verdict: how good (best in [0, 1]), whether it is the answer, or beyond hope."""

    score: float
    solved: bool = False
    prune: bool = False


class Scorer(Protocol):
    """Values a text. Called once per finished candidate with everything after the prompt."""

    def __call__(self, prompt: str, completion: str) -> Value | float: ...


@runtime_checkable
class BatchScorer(Protocol):
    """Values several texts at once, for scorers where a call is what costs."""

    def score_batch(self, prompt: str, completions: Sequence[str]) -> Sequence[Value | float]:
        """A verdict for each completion, in order."""
        ...


@dataclass(frozen=True)
class NodeScorer:
    """Values a node by what the tree knows of it: tokens, log-probabilities, the way to it.

    With `reads_reward` the engine asks its reward model about every branch that ends, and tells of
    the end only when `tree[node].reward` is there; other branches go on meanwhile.
    """

    function: Callable[[TreeView, int], Value | float]
    reads_reward: bool = False


AnyScorer: TypeAlias = Scorer | BatchScorer | NodeScorer


def values_of(
    scorer: AnyScorer, tree: TreeView, nodes: Sequence[int], *, prompt_node: int | None = None
) -> list[Value]:
    """What a scorer of any kind says of the paths to `nodes`, in their order.

    The prompt ends with `prompt_node`, by default the root. Raises InputError for a verdict that is
    no number, or another count of them than of nodes.
    """
    above = "" if prompt_node is None else tree.completion_text(prompt_node)
    prompt = tree[tree.root].text + above
    texts = [tree.completion_text(node)[len(above) :] for node in nodes]
    verdicts: Sequence[Value | float]
    if isinstance(scorer, NodeScorer):
        verdicts = [scorer.function(tree, node) for node in nodes]
    elif isinstance(scorer, BatchScorer):
        verdicts = scorer.score_batch(prompt, texts) if texts else []
    else:
        verdicts = [scorer(prompt, text) for text in texts]
    if len(verdicts) != len(nodes):
        raise InputError(expected_got("scorer", f"{len(nodes)} verdicts", len(verdicts)))
    return [as_value(verdict) for verdict in verdicts]


def as_value(verdict: Value | float) -> Value:
    """Read what a scorer returned; raises InputError unless it is a `Value` or a number."""
    value = verdict if isinstance(verdict, Value) else Value(score=_number(verdict))
    if math.isnan(_number(value.score)):
        raise InputError(expected_got("scorer", "a score that is a number", value.score))
    return value


def _number(score: object) -> float:
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise InputError(expected_got("scorer", "a Value or a number", repr(score)))
    return float(score)


def mean_logprob(tree: TreeView, node: int) -> float:
    """Log-probability per generated token of the path to a node; 0 for the root."""
    num_tokens = sum(len(step.token_ids) for step in tree.path(node)[1:])
    return tree[node].cumulative_logprob / num_tokens if num_tokens else 0.0


def _path_probability(tree: TreeView, node: int) -> float:
    return math.exp(mean_logprob(tree, node))


PATH_PROBABILITY = NodeScorer(_path_probability)
"""The geometric mean of the probabilities of a path's tokens: what the model itself prefers."""


def _reward(tree: TreeView, node: int) -> float:
    reward = tree[node].reward
    if reward is None:
        wanted = "a value by the reward model, whose context and pool the path fits"
        raise ScorerError(expected_got(f"reward of node {node}", wanted, None))
    return reward


REWARD = NodeScorer(_reward, reads_reward=True)
"""What the engine's reward model makes of a path; `LLM.search(scorer="reward")`."""


def with_reward(checker: Scorer) -> NodeScorer:
    """A checker's verdict on what is solved or wrong, with the reward as the score of the rest."""

    def value(tree: TreeView, node: int) -> Value:
        (found,) = values_of(checker, tree, [node])
        return found if found.solved or found.prune else replace(found, score=_reward(tree, node))

    return NodeScorer(value, reads_reward=True)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A question the model answers about a state: `suffix` is read after it, then two labels.

    The labels are single tokens. Source: the value prompt of Tree of Thoughts, Yao et al. 2023,
    read from probabilities instead of samples.
    """

    suffix: str
    positive: str
    negative: str

    @property
    def labels(self) -> tuple[str, str]:
        """Both labels, in the order `value` expects their log-probabilities."""
        return self.positive, self.negative

    def value(self, logprobs: Sequence[float]) -> float:
        """P(positive) / (P(positive) + P(negative)); one half when both are impossible."""
        return chance_of_first(logprobs)


def chance_of_first(logprobs: Sequence[float]) -> float:
    """The share of the first of two labels in their probabilities, given as natural logs."""
    yes, no = logprobs
    top = max(yes, no)
    if top == -math.inf:
        return 0.5
    yes, no = math.exp(yes - top), math.exp(no - top)
    return yes / (yes + no)
