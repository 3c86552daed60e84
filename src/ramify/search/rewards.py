"""Have the reward model value given continuations of one prompt: one prefix, k suffixes."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.search.controller import (
    Action,
    Event,
    Failed,
    Finish,
    Score,
    Scored,
    Started,
    Tokens,
)
from ramify.search.tree import TreeView


class Rewards:
    """Ask about every continuation at once; `values` come in the order given.

    Attributes:
        values: of the continuations that are valued, by their index.
        failure: why one of them cannot be.
    """

    def __init__(self, continuations: Sequence[Tokens]) -> None:
        self._continuations = continuations
        self.values: dict[int, float] = {}
        self.failure: str | None = None

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Finish when all are answered, or one cannot be."""
        actions: list[Action] = []
        for event in events:
            if isinstance(event, Started):
                actions += [
                    Score(node=event.root, suffix=tokens, reward=True, tag=index)
                    for index, tokens in enumerate(self._continuations)
                ]
            elif isinstance(event, Scored):
                assert isinstance(event.tag, int) and event.value is not None
                self.values[event.tag] = event.value
            elif isinstance(event, Failed):
                self.failure = event.reason
                return [Finish()]
        if len(self.values) == len(self._continuations):
            actions.append(Finish())
        return actions
