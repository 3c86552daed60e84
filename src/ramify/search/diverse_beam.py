"""Diverse beam search (Vijayakumar et al., AAAI 2018) with the Hamming penalty.

The beams are split into groups. At each step the groups choose one after the other; a token loses
`diversity_penalty` for every beam of an earlier group that chose it at this step, but for end
tokens, which lose nothing. Within a group it is beam search as in `beam.py`. Penalties only steer
the choice: finished beams are ranked by their log-probability and length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ramify.core.errors import InputError, expected_got
from ramify.core.params import BeamSearchParams
from ramify.search.beam import Hypothesis, penalised
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    Event,
    Failed,
    Finish,
    Mark,
    Prune,
    Score,
    Scored,
    Started,
)
from ramify.search.step_search import check_number, check_sizes
from ramify.search.tree import TreeView

Top = Sequence[tuple[int, float]]
"""Most probable next tokens with their log-probabilities, best first."""


@dataclass(kw_only=True, eq=False)
class Beam:
    """A running beam, its cumulative log-probability and what may follow it."""

    node: int
    logprob: float
    top: Top = ()


@dataclass(kw_only=True, eq=False)
class Group:
    """Beams that compete with each other only."""

    beams: list[Beam]
    pool: list[Hypothesis] = field(default_factory=list)  # finished, best first
    is_over: bool = False


class DiverseBeamSearch:
    """Beam search in `num_groups` groups that avoid each other's tokens.

    Args:
        params: as for beam search, for all groups together; `num_return` of all groups.
        num_groups: divides the beam width.
        diversity_penalty: natural-log units per earlier beam with the same token at this step.
        eos_token_ids: tokens that end a beam.
    Raises:
        InputError: the groups do not divide the width, or the penalty is negative.

    A group ends when it holds as many finished beams as it is wide and, unless `early_stopping` is
    True, none that runs on can enter (`"never"` is decided as False is). The last token of a
    finished beam is only computed when the beam is returned.
    """

    def __init__(
        self,
        params: BeamSearchParams,
        num_groups: int = 2,
        diversity_penalty: float = 0.5,
        eos_token_ids: Iterable[int] = (),
    ) -> None:
        check_sizes(num_groups=num_groups)
        check_number("diversity_penalty", diversity_penalty, at_least=0.0)
        if params.beam_width % num_groups:
            wanted = f"a divisor of the beam width {params.beam_width}"
            raise InputError(expected_got("num_groups", wanted, num_groups))
        self.params = params
        self._penalty, self._eos = diversity_penalty, frozenset(eos_token_ids)
        if params.ignore_eos:
            self._eos = frozenset()
        self._width = params.beam_width // num_groups
        # penalties may push a token of every earlier beam behind what a group needs
        self._num_candidates = max(2, 1 + len(self._eos)) * self._width + params.beam_width
        self._groups: list[Group] = []
        self._num_groups, self._num_tokens = num_groups, 0
        self._growing: dict[int, Beam] = {}  # by the tag of their Append
        self._returned: dict[int, Hypothesis] = {}
        self._outputs: dict[int, Hypothesis] = {}  # node of the last token -> what it ends
        self._stats: dict[str, int | str] = {}

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """From the candidates of a step to the beams of the next, or to the end."""
        for event in events:
            if isinstance(event, Started):
                structured, top = self.params.structured, self._num_candidates
                return [Score(node=event.root, top=top, structured=structured)]
            if isinstance(event, Scored):
                roots = [
                    Beam(node=event.node, logprob=0.0, top=event.top)
                    for _ in range(self._num_groups)
                ]
                self._groups = [Group(beams=[root]) for root in roots]
            elif isinstance(event, Appended):
                self._take(event)
            elif isinstance(event, Failed):
                self._lose(event)
        if self._growing or self._returned:
            return []
        return self._finish() if self._outputs else self._step(tree)

    def _take(self, event: Appended) -> None:
        """A token is computed: a beam's next one, or the last of one that is returned."""
        assert isinstance(event.tag, int), "every append is tagged"
        if event.tag in self._returned:
            self._outputs[event.node] = self._returned.pop(event.tag)
            return
        beam = self._growing.pop(event.tag)
        beam.node, beam.top = event.node, event.top

    def _lose(self, event: Failed) -> None:
        """No room for another token: what is finished by now is what there is."""
        self._stats["failed"] = event.reason
        if isinstance(event.tag, int):
            self._returned.pop(event.tag, None)
            self._growing.pop(event.tag, None)
        for group in self._groups:
            group.is_over = True

    def _step(self, tree: TreeView) -> list[Action]:
        """Let every group choose in turn; without one that runs on, return the best."""
        parents = {beam.node for group in self._groups for beam in group.beams}
        taken: Counter[int] = Counter()
        actions: list[Action] = []
        for group in self._groups:
            chosen = [] if group.is_over else self._choose(group, taken)
            group.beams = [beam for beam, _ in chosen]
            for beam, token in chosen:
                tag = len(self._growing)
                self._growing[tag] = beam
                actions.append(
                    Append(
                        node=beam.node,
                        tokens=(token,),
                        top=self._num_candidates,
                        structured=self.params.structured,
                        tag=tag,
                    )
                )
        self._num_tokens += 1
        actions += self._prune(tree, parents)
        return actions if self._growing else [*actions, *self._end()]

    def _choose(self, group: Group, taken: Counter[int]) -> list[tuple[Beam, int]]:
        """The group's next beams, each with its token; finished ones go to its pool."""
        ranked = sorted(
            (-(beam.logprob + logprob - self._penalty * taken[token]), place, token, logprob)
            for place, beam in enumerate(group.beams)
            for token, logprob in beam.top
            if logprob > -math.inf
        )
        is_last = self._num_tokens + 1 >= self.params.max_tokens
        chosen: list[tuple[Beam, int]] = []
        for rank, (_, place, token, added) in enumerate(ranked):
            parent = group.beams[place]
            logprob = parent.logprob + added
            if token in self._eos or is_last:
                if rank < self._width:
                    self._pool(group, parent.node, token, logprob)
                    taken[token] += token not in self._eos
            elif len(chosen) < self._width:
                taken[token] += 1
                chosen.append((Beam(node=parent.node, logprob=logprob), token))
        group.is_over = not chosen or self._is_settled(group, max(b.logprob for b, _ in chosen))
        return [] if group.is_over else chosen

    def _pool(self, group: Group, parent: int, token: int, logprob: float) -> None:
        """Keep a finished beam if it is among the group's best; of equal ones the earlier."""
        ended = Hypothesis(
            parent=parent,
            token=token,
            cumulative_logprob=logprob,
            num_tokens=self._num_tokens + 1,
            finish_reason="stop" if token in self._eos else "length",
        )
        ranked = sorted([*group.pool, ended], key=self._rank, reverse=True)
        group.pool = ranked[: self._width]

    def _is_settled(self, group: Group, best: float) -> bool:
        """Whether the pool is full and nothing that runs on could enter at its present length."""
        if len(group.pool) < self._width:
            return False
        hoped_for = penalised(best, self._num_tokens + 1, self.params.length_penalty)
        return self.params.early_stopping is True or hoped_for <= self._score(group.pool[-1])

    def _prune(self, tree: TreeView, parents: Iterable[int]) -> list[Action]:
        """Cut old beams, and what only led to them, where no new or finished beam needs them."""
        running = {beam.node for beam in self._growing.values()}
        held = running | {h.parent for group in self._groups for h in group.pool}
        needed = {step.id for node in held for step in tree.path(node)} | {tree.root}
        cut = []
        for node in sorted(set(parents) - needed):
            path = [step.id for step in tree.path(node) if step.id not in needed]
            cut.append(path[0])
        return [Prune(node=node) for node in dict.fromkeys(cut)]

    def _end(self) -> list[Action]:
        """Append the last tokens of the best finished beams of all groups."""
        pool = [hypothesis for group in self._groups for hypothesis in group.pool]
        best = sorted(pool, key=self._rank, reverse=True)
        count = self.params.num_return or self.params.beam_width
        self._returned = dict(enumerate(best[:count]))
        if not best:
            return self._finish()
        return [
            Append(node=h.parent, tokens=(h.token,), tag=rank) for rank, h in self._returned.items()
        ]

    def _score(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score(self.params.length_penalty)

    def _rank(self, hypothesis: Hypothesis) -> tuple[bool, float]:
        return hypothesis.rank(self.params)

    def _finish(self) -> list[Action]:
        ranked = sorted(self._outputs, key=lambda n: self._rank(self._outputs[n]), reverse=True)
        marks = [Mark(node=node, score=self._score(self._outputs[node])) for node in ranked]
        return [*marks, Finish(outputs=tuple(ranked), stats=self._stats)]
