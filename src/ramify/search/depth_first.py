"""Tree of Thoughts, depth first (Yao et al., NeurIPS 2023, algorithm 2).

The most hopeful step is followed at once; steps below a threshold are cut, and where nothing is
left the search goes back to the deepest step that was not tried. The breadth-first variant is in
`tree_of_thoughts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify.search.step_search import StepSearch, check_number, check_sizes
from ramify.search.thought import Expansion, Thought
from ramify.search.tree import TreeView


@dataclass(kw_only=True, eq=False)
class DepthFirst(StepSearch):
    """Expand one step at a time by k, the best child first.

    What was explored in vain is cut when the search leaves it, so that the KV of one path and the
    steps beside it is all that is held; answers that the scorer did not confirm stay. No state is
    visited twice, so repeated rounds only look at what earlier ones did not meet.

    Attributes:
        threshold: a step of a lower value is cut.
    """

    k: int = 4
    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(k=self.k)
        check_number("threshold", self.threshold)
        self._untried: list[Thought] = []  # the next one last
        self._path: list[Thought] = []  # being explored, below the root

    def _begin(self, tree: TreeView) -> None:
        self.growth.expand(tree, self.root, self.k)

    def _go_on(self, tree: TreeView, expansion: Expansion) -> None:
        for thought in sorted(expansion.made, key=lambda t: t.rank, reverse=True):
            if thought.is_answer:
                continue
            if thought.value < self.threshold:
                self.growth.prune(tree, thought)
            else:
                self._untried.append(thought)
        if self._untried and self.growth.expand(tree, self._untried[-1], self.k):
            self._move_to(tree, self._untried.pop())

    def _move_to(self, tree: TreeView, thought: Thought) -> None:
        """Leave what was explored beside and below the new step's place."""
        explored = self._path[thought.level - 1 :]
        self._path[thought.level - 1 :] = [thought]
        answers = [t.node for t in self.growth.thoughts.values() if t.is_answer]
        holders = {step.id for node in answers for step in tree.path(node)}
        for left in explored[:1]:
            if left.node not in holders:
                self.growth.prune(tree, left)
