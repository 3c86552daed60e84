"""Thoughts, the nodes that end a step, and the expansions that make them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from ramify.search.tree import TreeView


@dataclass(kw_only=True, eq=False)
class Thought:
    """A node that ends a step. `value` in [0, 1] says how hopeful it is, `logprob` breaks ties."""

    node: int
    level: int
    value: float
    logprob: float
    is_answer: bool = False  # ended by an end token or at the last level
    is_stuck: bool = False  # its path has no room for another token
    num_expansions: int = 0
    num_samples: int = 0
    num_useful: int = 0  # samples that were new and legal

    def priority(self, depth: int) -> float:
        """What the next samples here promise for their cost.

        The value is divided by the steps still to go, which the tokens of a success grow with. It
        is shared out over expansions already made, and shrinks with the share of samples that
        brought nothing new (add-one smoothed): a node whose samples repeat is nearly used up.
        """
        return self.worth_of_samples / (1 + self.num_expansions) / (depth - self.level)

    @property
    def worth_of_samples(self) -> float:
        """The value times the share of samples that brought something new, add-one smoothed."""
        return self.value * (1 + self.num_useful) / (1 + self.num_samples)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sorts the best first: by value, then by mean log-probability, then the earlier."""
        return -self.value, -self.logprob, self.node


@dataclass(kw_only=True, eq=False)
class Expansion:
    """Branches started together; over when all have ended and those that were kept are valued."""

    source: Thought
    group: Hashable  # copies are looked for within a group
    num_tokens: int  # the most a branch may take
    num_due: int  # branches that are not there yet
    growing: set[int] = field(default_factory=set)
    judged: set[int] = field(default_factory=set)
    made: list[Thought] = field(default_factory=list)  # kept, by node

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is under way."""
        return not (self.num_due or self.growing or self.judged)

    def tokens_due(self, tree: TreeView) -> int:
        """The most tokens that its branches may still take."""
        grown = sum(len(tree[node].token_ids) for node in self.growing)
        return (self.num_due + len(self.growing)) * self.num_tokens - grown
