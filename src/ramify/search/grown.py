"""Nodes of fronts as columns: what becomes a `LogicalNode` once somebody looks at it.

A wide front leaves a hundred nodes a step, most of which are pruned and never looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ramify.core.seeds import given_seed
from ramify.core.structured import StructuredOutput

if TYPE_CHECKING:
    from ramify.search.tree import NodeState


class Level(NamedTuple):
    """Branches that a front got in one step: nodes [begin, end)."""

    begin: int
    end: int
    structured: StructuredOutput | None
    text_of: Callable[[int], str]


@dataclass(slots=True, kw_only=True, eq=False)
class GrownNodes:
    """Nodes of one token each, as lists by node id.

    Of nodes that were not grown, only the entries of `num_living` mean something. What somebody has
    looked at is a `LogicalNode`, which others may write to: its state here may be an old one.
    """

    state: list[NodeState | None] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    token: list[int] = field(default_factory=list)
    cumulative_logprob: list[float] = field(default_factory=list)  # natural log
    num_living: list[int] = field(default_factory=list)  # grown children that are not pruned
    _seed: list[int | None] = field(default_factory=list)  # None: nobody has asked yet
    _levels: list[Level] = field(default_factory=list)  # in order

    def add(
        self,
        level: Level,
        parents: Sequence[int],
        tokens: Sequence[int],
        logprobs: Sequence[float],
        state: NodeState,
    ) -> None:
        """Take the nodes of a level; the other arguments are lists of theirs, and their state."""
        self._pad(level.begin)
        num_nodes = level.end - level.begin
        self._levels.append(level)
        self.state += [state] * num_nodes
        self.parent += parents
        self.token += tokens
        self.cumulative_logprob += logprobs
        self.num_living += [0] * num_nodes
        self._seed += [None] * num_nodes
        for parent in parents:
            self.num_living[parent] += 1

    def level_of(self, node: int) -> Level | None:
        """The level that a node was grown in; None for any other node."""
        place = bisect_right(self._levels, node, key=_begin) - 1
        level = self._levels[place] if place >= 0 else None
        return level if level is not None and node < level.end else None

    def children_of(self, node: int) -> list[int]:
        """Grown children of a grown node: they are of the next level, as fronts grow by levels."""
        place = bisect_right(self._levels, node, key=_begin)
        if place == len(self._levels):
            return []
        begin, end, _, _ = self._levels[place]
        return [child for child in range(begin, end) if self.parent[child] == node]

    def seed_of(self, node: int, known: Callable[[int], int | None]) -> int:
        """A grown node's seed, which follows from the path to it.

        Args:
            known: the seed of a node that somebody has looked at; one above `node` at least.
        """
        below = []
        while (seed := self._seed[node]) is None and (seed := known(node)) is None:
            below.append(node)
            node = self.parent[node]
        for step in reversed(below):
            seed = self._seed[step] = given_seed(seed, (self.token[step],))
        return seed

    @property
    def num_nodes(self) -> int:
        """Grown nodes in all."""
        return sum(level.end - level.begin for level in self._levels)

    def _pad(self, begin: int) -> None:
        """Enter the nodes before `begin` that were not grown."""
        missing = begin - len(self.state)
        self.state += [None] * missing
        self.parent += [-1] * missing
        self.token += [-1] * missing
        self.cumulative_logprob += [0.0] * missing
        self.num_living += [0] * missing
        self._seed += [None] * missing


def _begin(level: Level) -> int:
    return level.begin
