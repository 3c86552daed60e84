"""Plain sampling: n branches from the prompt, all kept. What `LLM.generate` runs."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.core.params import SamplingParams
from ramify.search.controller import (
    Action,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Spawned,
    Started,
)
from ramify.search.tree import TreeView


class Sample:
    """Grow `params.n` branches from the root and finish when all have ended.

    Outputs are in branch-index order, whatever order they end in. When the expansion fails, the
    search finishes with no output and the reason in its stats.
    """

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._branches: tuple[int, ...] = ()
        self._ended: set[int] = set()

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Answer `Started` with one `Expand`, and the end of the last branch with `Finish`."""
        for event in events:
            if isinstance(event, Started):
                return [Expand(node=event.root, k=self.params.n, params=self.params)]
            if isinstance(event, Failed) and event.node not in self._branches:
                return [Finish(outputs=(), stats={"failed": event.reason})]
            if isinstance(event, Spawned):
                self._branches = event.nodes
            if isinstance(event, (Finished, Failed)):
                self._ended.add(event.node)
        if self._branches and self._ended >= set(self._branches):
            return [Finish(outputs=self._branches)]
        return []
