"""Prompt lookup: what followed the last tokens of a path where they occurred on it before.

Source: prompt lookup decoding (Saxena 2023), with a tree in place of one continuation.
"""

from __future__ import annotations

from collections.abc import Sequence

from ramify.engine.speculation.draft import DraftContext, DraftTree
from ramify.engine.speculation.merge import continuations, followed, merge


class NgramDrafter:
    """Drafts from the branch's own tokens. It has no state."""

    def __init__(self, *, min_match: int = 1, max_match: int = 5) -> None:
        self._min, self._max = min_match, max_match

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter."""
        return [self._draft(context) for context in contexts]

    def learn(self, token_ids: Sequence[int]) -> None:
        """Other paths are not looked at."""

    def _draft(self, context: DraftContext) -> DraftTree:
        tokens = context.token_ids
        found = continuations(tokens, tokens[-self._max :], self._min, self._max)
        paths, weights = followed(tokens, *found, context.max_depth)
        return merge(paths, weights, context.max_tokens, context.max_depth)
