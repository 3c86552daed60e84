"""Score given continuations of one prompt as leaves of one tree: one prefix, k suffixes."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.core.outputs import TokenLogprob
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    Event,
    Failed,
    Finish,
    Mark,
    Started,
    Tokens,
)
from ramify.search.tree import TreeView


class Continuations:
    """Append every continuation to the prompt; outputs come in the order given.

    `logprobs` is the number of alternatives reported at each token.
    """

    def __init__(self, continuations: Sequence[Tokens], logprobs: int = 0) -> None:
        self._continuations = continuations
        self._logprobs = logprobs
        self._nodes: dict[int, int] = {}  # continuation -> node
        self.failure: str | None = None

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Ask for all at once; finish when all are computed."""
        actions: list[Action] = []
        for event in events:
            if isinstance(event, Started):
                actions += [
                    Append(node=event.root, tokens=tokens, logprobs=self._logprobs, tag=index)
                    for index, tokens in enumerate(self._continuations)
                ]
            elif isinstance(event, Appended):
                assert isinstance(event.tag, int), "tags are the continuation's index"
                self._nodes[event.tag] = event.node
                actions.append(Mark(node=event.node, score=_total(event.logprobs)))
            elif isinstance(event, Failed):
                self.failure = event.reason
                return [Finish()]
        if len(self._nodes) == len(self._continuations):
            actions.append(Finish(outputs=[self._nodes[i] for i in sorted(self._nodes)]))
        return actions


def _total(logprobs: Sequence[TokenLogprob]) -> float:
    return sum(token.logprob for token in logprobs)
