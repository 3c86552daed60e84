"""Best-of-n, and self-consistency when the samples vote (Wang et al., ICLR 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, TypeAlias

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.budget import Allowance, Budget
from ramify.search.controller import (
    Action,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Mark,
    Spawned,
)
from ramify.search.scorer import AnyScorer, Value, mean_logprob, values_of
from ramify.search.tree import TreeView

Select: TypeAlias = Literal["score", "majority", "logprob"]
Answer: TypeAlias = Callable[[str], Hashable]
"""What a text votes for; None abstains."""


class BestOfN:
    """Sample `params.n` completions, rank them, and stop at once when the scorer says solved
    or gives a score of `enough`.

    `select` ranks by the scorer's score, by the number of samples with the same `answer`, or by
    mean log-probability per token. Equal ranks are broken by score, then by mean log-probability,
    then by the earlier sample. With a budget, rounds of n are repeated until no branch fits; the
    budget is never exceeded. Every sample is marked with the number it was selected by.

    Raises:
        InputError: `select` is unknown, or lacks the scorer or answer that it needs.
    """

    def __init__(
        self,
        params: SamplingParams,
        scorer: AnyScorer | None = None,
        select: Select = "score",
        answer: Answer | None = None,
        budget: Budget | None = None,
        enough: float | None = None,
    ) -> None:
        if select not in ("score", "majority", "logprob"):
            raise InputError(
                expected_got("select", "'score', 'majority' or 'logprob'", repr(select))
            )
        if select == "score" and scorer is None:
            raise InputError(expected_got("scorer", "a scorer for select='score'", None))
        if select == "majority" and answer is None:
            raise InputError(expected_got("answer", "a callable for select='majority'", None))
        self.params = params
        self._scorer, self._select, self._answer = scorer, select, answer
        self._budget, self._enough = budget or Budget(), enough
        self._expected_tokens = params.max_tokens
        self._growing: set[int] = set()
        self._values: dict[int, Value] = {}  # samples that ended, with the scorer's verdict
        self._num_rounds = 0

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Value what ended; when a round is over, start the next one or finish."""
        failure = next((e for e in events if isinstance(e, Failed)), None)
        for event in events:
            if isinstance(event, Spawned):
                self._growing.update(event.nodes)
            elif isinstance(event, Failed):
                self._growing.discard(event.node)
        solved = self._end(tree, [e.node for e in events if isinstance(e, Finished)])
        if solved is not None:
            return self._finish(tree, solved=solved)
        if self._growing:
            return []
        k, params = (0, self.params) if failure else self._next_round(tree)
        if k == 0:
            return self._finish(tree)
        self._num_rounds += 1
        return [Expand(node=tree.root, k=k, params=params)]

    def _next_round(self, tree: TreeView) -> tuple[int, SamplingParams]:
        """Samples that the budget still allows; without a budget there is one round."""
        if self._num_rounds and not self._budget.is_limited:
            return 0, self.params
        k, params = Allowance(self._budget, tree).take(
            self.params.n, self.params, self._expected_tokens
        )
        if k == 0 and self._num_rounds == 0:
            # a budget below one full sample still buys a shorter one
            k, params = Allowance(self._budget, tree).take(1, self.params, 1)
        return k, params

    def _end(self, tree: TreeView, nodes: Sequence[int]) -> int | None:
        """Value samples that ended together; returns the first that is solved."""
        self._growing.difference_update(nodes)
        for node in nodes:
            num_tokens = len(tree[node].token_ids)
            is_first = not self._values
            longest = num_tokens if is_first else max(self._expected_tokens, num_tokens)
            self._expected_tokens = longest
            self._values[node] = Value(score=0.0)
        if self._scorer is not None:
            found = values_of(self._scorer, tree, nodes)
            self._values.update(zip(nodes, found, strict=True))
        return next((node for node in nodes if self._is_enough(self._values[node])), None)

    def _is_enough(self, value: Value) -> bool:
        return value.solved or (self._enough is not None and value.score >= self._enough)

    def _finish(self, tree: TreeView, solved: int | None = None) -> list[Action]:
        """Mark and rank all samples; a solved one goes first."""
        marks = self._selected_by(tree)

        def rank(node: int) -> tuple[float, ...]:
            score = self._values[node].score
            return (-(node == solved), -marks[node], -score, -mean_logprob(tree, node), node)

        ranked = sorted(self._values, key=rank)
        stats = {"samples": len(ranked), "rounds": self._num_rounds}
        marked = [Mark(node=node, score=marks[node]) for node in ranked]
        return [*marked, Finish(outputs=tuple(ranked), solved=solved is not None, stats=stats)]

    def _selected_by(self, tree: TreeView) -> dict[int, float]:
        """The number each sample is ranked by: score, share of the votes, or mean logprob."""
        if self._select == "score":
            return {node: value.score for node, value in self._values.items()}
        if self._select == "logprob":
            return {node: mean_logprob(tree, node) for node in self._values}
        assert self._answer is not None, "checked when the controller was made"
        answers = {node: self._answer(tree.completion_text(node)) for node in self._values}
        votes = Counter(answer for answer in answers.values() if answer is not None)
        total = max(votes.total(), 1)
        return {node: votes.get(answer, 0) / total for node, answer in answers.items()}
