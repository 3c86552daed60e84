"""REBASE, reward-balanced search (Wu, Sun, Li, Welleck, Yang, *Inference Scaling Laws*, ICLR 2025).

At each depth the width is shared out over the steps by a softmax of their values: a step twice as
hopeful is expanded more often instead of alone, and answers take their share out of the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.search.step_search import StepSearch, check_number, check_sizes
from ramify.search.thought import Expansion, Thought
from ramify.search.tree import TreeView


@dataclass(kw_only=True, eq=False)
class Rebase(StepSearch):
    """Expand all steps of a depth at once, `width` branches in all, balanced by value.

    Steps whose share is nothing are cut. The paper rounds each share; here they are apportioned, so
    that they always sum to the width that answers leave. Each depth waits for the last of its
    branches: shares need all values.

    Attributes:
        balance: temperature of the softmax; small favours the best, large shares evenly.
    """

    width: int = 8
    balance: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(width=self.width)
        check_number("balance", self.balance, above=0.0)
        self._made: list[Thought] = []
        self._left = 0  # of the width, by answers

    def _begin(self, tree: TreeView) -> None:
        self._left = self.width
        self.growth.expand(tree, self.root, self.width, group=self.num_rounds)

    def _go_on(self, tree: TreeView, expansion: Expansion) -> None:
        self._made.extend(expansion.made)

    def _idle(self, tree: TreeView) -> None:
        made, self._made = sorted(self._made, key=lambda thought: thought.node), []
        self._left -= sum(thought.is_answer for thought in made)
        candidates = [thought for thought in made if not thought.is_answer]
        shares = shares_of([t.value for t in candidates], max(self._left, 0), self.balance)
        for thought, share in zip(candidates, shares, strict=True):
            if share == 0:
                self.growth.prune(tree, thought)
            else:
                self.growth.expand(tree, thought, share, group=self.num_rounds)
        if not self.growth.is_busy:
            super()._idle(tree)


def shares_of(values: Sequence[float], total: int, balance: float) -> list[int]:
    """Whole shares of `total` in proportion to exp(value / balance), by largest remainders.

    Of equal remainders the earlier one is rounded up.
    """
    if not values:
        return []
    best = max(values)
    weights = [math.exp((value - best) / balance) for value in values]
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(values)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
