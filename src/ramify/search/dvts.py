"""Diverse verifier tree search (Beeching, Tunstall, Rush, *Scaling test-time compute with open
models*, Hugging Face 2024): independent subtrees, each of which keeps its best step alone.

A beam that a verifier guides collapses: its best beams soon share one beginning. Subtrees that
never compete stay apart, and no subtree waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify.search.step_search import StepSearch, check_sizes
from ramify.search.thought import Expansion
from ramify.search.tree import TreeView


@dataclass(kw_only=True, eq=False)
class DiverseVerifierTreeSearch(StepSearch):
    """Go down `width` subtrees side by side: expand by k, keep the best step, cut the others.

    A subtree ends with an answer or where no step is left. With a budget another one then begins
    at the root in its place. Copies are dropped within a subtree only.
    """

    width: int = 4
    k: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(width=self.width, k=self.k)
        self._num_subtrees = 0

    def _begin(self, tree: TreeView) -> None:
        for _ in range(self.width):
            self._begin_subtree(tree)

    def _begin_subtree(self, tree: TreeView) -> None:
        self.growth.expand(tree, self.root, self.k, group=self._num_subtrees)
        self._num_subtrees += 1

    def _go_on(self, tree: TreeView, expansion: Expansion) -> None:
        ranked = sorted(expansion.made, key=lambda thought: thought.rank)
        for loser in ranked[1:]:
            self.growth.prune(tree, loser)
        if ranked and not ranked[0].is_answer:
            self.growth.expand(tree, ranked[0], self.k, group=expansion.group)
        elif self.repeats:
            self._begin_subtree(tree)
