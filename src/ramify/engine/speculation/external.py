"""A drafter of the user's: a callable from a path to continuations of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ramify.engine.speculation.draft import DraftContext, DraftTree

Guess: TypeAlias = Callable[[list[int], int], Sequence[Sequence[int]]]
"""(token ids of the path, most tokens) -> continuations, the likeliest first."""


class CallableDrafter:
    """Merges the continuations that a callable gives into a tree."""

    def __init__(self, guess: Guess) -> None:
        self._guess = guess

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter. Whatever the callable raises comes out unchanged."""
        return [
            DraftTree.from_continuations(
                self._guess(context.token_ids.tolist(), context.max_tokens),
                context.max_tokens,
                context.max_depth,
            )
            for context in contexts
        ]

    def learn(self, token_ids: Sequence[int]) -> None:
        """A callable learns nothing."""
