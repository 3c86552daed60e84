"""Beam search with the semantics of transformers' `generate(num_beams=...)` (version 5).

Each step looks at the `max(2, 1 + number of end tokens) * width` best continuations of the running
beams. Those among the first `width` that end go to the pool of finished hypotheses, scored by
sum of log-probabilities / generated tokens ** length_penalty; the best `width` that do not end run
on. The search stops when nothing running can enter the pool by the rule `early_stopping` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import FinishReason
from ramify.core.params import BeamSearchParams
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    Candidates,
    Event,
    Failed,
    Finish,
    Mark,
    Ranked,
    Score,
    Scored,
    Select,
    Started,
)
from ramify.search.tree import TreeView

_MAX_LOG_NORM = 300.0
"""Largest log of length ** length_penalty; beyond it a float64 nears its end."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A finished continuation: the computed node it leaves from, and its last token."""

    parent: int
    token: int
    cumulative_logprob: float
    num_tokens: int
    finish_reason: FinishReason

    def score(self, length_penalty: float) -> float:
        """Length-normalised log-probability, as finished hypotheses are ranked by."""
        return penalised(self.cumulative_logprob, self.num_tokens, length_penalty)

    def rank(self, params: BeamSearchParams) -> tuple[bool, float]:
        """The larger the better: structured output that was cut off comes behind what is whole."""
        is_whole = params.structured is None or self.finish_reason == "stop"
        return is_whole, self.score(params.length_penalty)


class BeamSearch:
    """Keep the `beam_width` most probable continuations, token by token.

    Outputs are nodes of the tree, best first, marked with their scores; `hypotheses` tells the
    same as data once the search is finished: output node to what it is made of. The last token of a
    finished hypothesis is only added to the tree when the hypothesis is returned, so a candidate
    that falls out of the pool costs no computation.
    """

    def __init__(self, params: BeamSearchParams, eos_token_ids: Iterable[int] = ()) -> None:
        if abs(params.length_penalty) * math.log(params.max_tokens) > _MAX_LOG_NORM:
            wanted = f"a number that keeps {params.max_tokens} ** length_penalty finite"
            raise InputError(expected_got("length_penalty", wanted, params.length_penalty))
        self.params = params
        self.hypotheses: dict[int, Hypothesis] = {}
        self._eos = np.array(() if params.ignore_eos else tuple(set(eos_token_ids)), dtype=np.int64)
        self._num_candidates = max(2, 1 + len(self._eos)) * params.beam_width
        self._nodes: Sequence[int] = ()  # running beams, best first
        self._num_tokens = 0  # of each of them
        self._pool: list[Hypothesis] = []  # finished, best first
        self._returned: dict[int, Hypothesis] = {}  # last tokens to be appended, by rank
        self._stats: dict[str, float | int | str] = {}

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """From the candidates of a step to the beams of the next, or to the end."""
        actions: Sequence[Action] = []
        for event in events:
            if isinstance(event, Started):
                self._nodes = [event.root]
                structured, top = self.params.structured, self._num_candidates
                actions = [Score(node=event.root, top=top, structured=structured)]
            elif isinstance(event, Scored):
                actions = self._step(tree, _candidates_of(event))
            elif isinstance(event, Ranked):
                self._nodes = event.nodes
                self._num_tokens += 1
                actions = self._step(tree, event.best)
            elif isinstance(event, Appended):
                assert isinstance(event.tag, int), "every append is tagged with its rank"
                self.hypotheses[event.node] = self._returned.pop(event.tag)
            elif isinstance(event, Failed):
                self._stats["failed"] = event.reason
                if not self._returned:  # the beams have no room for another token
                    actions = self._end(tree)
                else:
                    assert isinstance(event.tag, int), "every append is tagged with its rank"
                    del self._returned[event.tag]
        return actions if actions or self._returned else self._finish()

    def _step(self, tree: TreeView, found: Candidates) -> list[Action]:
        """Choose among the continuations of all running beams."""
        width, num_tokens = self.params.beam_width, self._num_tokens + 1
        stops = (found.token[:, None] == self._eos).any(axis=1)
        ends = stops | (num_tokens >= self.params.max_tokens)
        ended = [
            self._ended(found, i, bool(stops[i])) for i in np.flatnonzero(ends[:width]).tolist()
        ]
        if ended:
            # the sort is stable: of equal scores, the one that was there stays
            ranked = sorted([*self._pool, *ended], key=lambda h: h.rank(self.params), reverse=True)
            self._pool = ranked[:width]
        running = np.flatnonzero(~ends)[:width]
        if not len(running) or self._is_settled(float(found.logprob[running[0]])):
            return self._end(tree)
        return [
            Select(
                start=tree.root,
                nodes=[self._nodes[branch] for branch in found.branch[running].tolist()],
                tokens=found.token[running].tolist(),
                logprobs=found.logprob[running].tolist(),
                held={hypothesis.parent for hypothesis in self._pool},
                top=self._num_candidates,
                structured=self.params.structured,
            )
        ]

    def _ended(self, found: Candidates, place: int, is_stop: bool) -> Hypothesis:
        return Hypothesis(
            parent=self._nodes[found.branch[place]],
            token=int(found.token[place]),
            cumulative_logprob=float(found.logprob[place]),
            num_tokens=self._num_tokens + 1,
            finish_reason="stop" if is_stop else "length",
        )

    def _end(self, tree: TreeView) -> list[Action]:
        """Give up the running beams and append the last tokens of the best hypotheses."""
        best = self._pool[: self.params.num_return or self.params.beam_width]
        self._returned = dict(enumerate(best))
        if not best:
            return []
        held = {hypothesis.parent for hypothesis in best}
        leave = Select(start=tree.root, nodes=(), tokens=(), logprobs=(), held=held, top=0)
        appends = [
            Append(node=h.parent, tokens=(h.token,), tag=rank) for rank, h in enumerate(best)
        ]
        return [leave, *appends]

    def _score(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score(self.params.length_penalty)

    def _is_settled(self, best: float) -> bool:
        """Whether the pool is full and, by the rule of `early_stopping`, final.

        Args:
            best: cumulative log-probability of the best continuation that runs on.
        """
        if len(self._pool) < self.params.beam_width:
            return False
        if self.params.early_stopping is True:
            return True
        penalty = self.params.length_penalty
        is_exact = self.params.early_stopping == "never" and penalty > 0.0
        num_tokens = self.params.max_tokens if is_exact else self._num_tokens + 1
        hoped_for = penalised(best, num_tokens, penalty)
        return hoped_for <= self._score(self._pool[-1])

    def _finish(self) -> list[Action]:
        def rank(node: int) -> tuple[bool, float]:
            return self.hypotheses[node].rank(self.params)

        ranked = sorted(self.hypotheses, key=rank, reverse=True)
        marks = [Mark(node=node, score=self._score(self.hypotheses[node])) for node in ranked]
        return [*marks, Finish(outputs=tuple(ranked), stats=self._stats)]


def penalised(logprob: float, num_tokens: int, length_penalty: float) -> float:
    """logprob / num_tokens ** length_penalty."""
    return logprob / math.pow(num_tokens, length_penalty)


def _candidates_of(root: Scored) -> Candidates:
    """The continuations of the one beam there is at first."""
    top = [(token, logprob) for token, logprob in root.top if logprob > -math.inf]
    return Candidates(
        branch=np.zeros(len(top), dtype=np.int64),
        token=np.array([token for token, _ in top], dtype=np.int64),
        logprob=np.array([logprob for _, logprob in top], dtype=np.float64),
    )
