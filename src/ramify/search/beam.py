"""Beam search with the semantics of transformers' `generate(num_beams=...)` (version 5).

Each step looks at the `max(2, 1 + number of end tokens) * width` best continuations of the running
beams. Those among the first `width` that end go to the pool of finished hypotheses, scored by
sum of log-probabilities / generated tokens ** length_penalty; the best `width` that do not end run
on. The search stops when nothing running can enter the pool by the rule `early_stopping` names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import FinishReason
from ramify.core.params import BeamSearchParams
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    Close,
    Event,
    Failed,
    Finish,
    Mark,
    Prune,
    Score,
    Scored,
    Started,
)
from ramify.search.tree import TreeView

_MAX_LOG_NORM = 300.0
"""Largest log of length ** length_penalty; beyond it a float64 nears its end."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A continuation of the prompt: the computed node it leaves from, and one token more."""

    parent: int
    token: int
    cumulative_logprob: float
    num_tokens: int
    finish_reason: FinishReason | None = None  # None while it runs on

    def score(self, length_penalty: float) -> float:
        """Length-normalised log-probability, as finished hypotheses are ranked by."""
        return penalised(self.cumulative_logprob, self.num_tokens, length_penalty)


@dataclass(frozen=True, kw_only=True)
class _Beam:
    """A running beam whose node is computed: its sum and its most probable next tokens."""

    node: int
    cumulative_logprob: float
    num_tokens: int
    top: tuple[tuple[int, float], ...]


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
        self._eos = frozenset(() if params.ignore_eos else eos_token_ids)
        self._num_candidates = max(2, 1 + len(self._eos)) * params.beam_width
        self._pending: dict[int, Hypothesis] = {}  # appends under way, by rank
        self._beams: dict[int, _Beam] = {}  # running beams, by rank
        self._pool: list[Hypothesis] = []  # finished, best first
        self._open: set[int] = set()  # nodes that a hypothesis may leave from
        self._parent_of: dict[int, int] = {}  # nodes with KV, the root left out
        self._num_children: Counter[int] = Counter()
        self._is_ending = False
        self._stats: dict[str, float | int | str] = {}

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Wait until the whole step is computed, then choose the next one."""
        for event in events:
            if isinstance(event, Started):
                return [Score(node=event.root, top=self._num_candidates)]
            if isinstance(event, Scored):
                root = _Beam(node=event.node, cumulative_logprob=0.0, num_tokens=0, top=event.top)
                self._beams[0] = root
            elif isinstance(event, Appended):
                self._add(event)
            elif isinstance(event, Failed):
                self._stats["failed"] = event.reason
                self._pending = {r: h for r, h in self._pending.items() if r != event.tag}
        if self._pending:
            return []
        return self._finish() if self._is_ending else self._step()

    def _add(self, event: Appended) -> None:
        assert isinstance(event.tag, int), "every append is tagged with its rank"
        made = self._pending.pop(event.tag)
        if self._is_ending:
            self.hypotheses[event.node] = made
            return
        self._open.add(event.node)
        self._parent_of[event.node] = event.parent
        self._num_children[event.parent] += 1
        self._beams[event.tag] = _Beam(
            node=event.node,
            cumulative_logprob=made.cumulative_logprob,
            num_tokens=made.num_tokens,
            top=event.top,
        )

    def _step(self) -> list[Action]:
        """From the logits of all running beams to the appends of the next step, or of the end."""
        width = self.params.beam_width
        candidates = self._candidates()
        running = [c for c in candidates if c.finish_reason is None][:width]
        ended = [c for c in candidates[:width] if c.finish_reason is not None]
        # the sort is stable: of equal scores, the one that was there stays
        self._pool = sorted([*self._pool, *ended], key=self._score, reverse=True)[:width]
        self._beams = {}
        if not running or self._is_settled(running[0]):
            self._is_ending = True
            running = self._pool[: self.params.num_return or width]
        self._pending = dict(enumerate(running))
        top = 0 if self._is_ending else self._num_candidates
        appends = [
            Append(node=h.parent, tokens=(h.token,), top=top, tag=rank)
            for rank, h in self._pending.items()
        ]
        return [*self._release(), *appends] if appends else self._finish()

    def _candidates(self) -> list[Hypothesis]:
        """The most probable continuations of all beams, best first; ties go to the better beam."""
        found = [
            Hypothesis(
                parent=beam.node,
                token=token,
                cumulative_logprob=beam.cumulative_logprob + logprob,
                num_tokens=beam.num_tokens + 1,
                finish_reason=self._reason(token, beam.num_tokens + 1),
            )
            for _, beam in sorted(self._beams.items())
            for token, logprob in beam.top
            if logprob > -math.inf
        ]
        found.sort(key=lambda candidate: -candidate.cumulative_logprob)
        return found[: self._num_candidates]

    def _reason(self, token: int, num_tokens: int) -> FinishReason | None:
        if token in self._eos:
            return "stop"
        return "length" if num_tokens >= self.params.max_tokens else None

    def _score(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score(self.params.length_penalty)

    def _is_settled(self, best: Hypothesis) -> bool:
        """Whether the pool is full and, by the rule of `early_stopping`, final."""
        if len(self._pool) < self.params.beam_width:
            return False
        if self.params.early_stopping is True:
            return True
        penalty = self.params.length_penalty
        is_exact = self.params.early_stopping == "never" and penalty > 0.0
        num_tokens = self.params.max_tokens if is_exact else best.num_tokens
        hoped_for = penalised(best.cumulative_logprob, num_tokens, penalty)
        return hoped_for <= self._score(self._pool[-1])

    # ── the tree: keep no KV that neither a running nor a finished hypothesis needs ─────────────
    def _release(self) -> list[Action]:
        """Close what only its descendants need, prune what nothing needs."""
        held = {h.parent for h in (*self._pool, *self._pending.values())}
        actions: list[Action] = []
        for node in sorted(self._open - held, reverse=True):
            self._open.discard(node)
            if self._num_children[node]:
                actions.append(Close(node=node))
            elif node in self._parent_of:
                actions.append(Prune(node=self._topmost_unused(node, held)))
        return actions

    def _topmost_unused(self, node: int, held: set[int]) -> int:
        """Forget `node` and every ancestor that only led to it; returns the last one forgotten."""
        while True:
            parent = self._parent_of.pop(node)
            self._num_children[parent] -= 1
            if parent not in self._parent_of or parent in held or self._num_children[parent]:
                return node
            node = parent

    def _finish(self) -> list[Action]:
        ranked = sorted(self.hypotheses, key=lambda node: -self._score(self.hypotheses[node]))
        marks = [Mark(node=node, score=self._score(self.hypotheses[node])) for node in ranked]
        return [*marks, Finish(outputs=tuple(ranked), stats=self._stats)]


def penalised(logprob: float, num_tokens: int, length_penalty: float) -> float:
    """logprob / num_tokens ** length_penalty."""
    return logprob / math.pow(num_tokens, length_penalty)
