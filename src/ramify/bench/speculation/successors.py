"""An external drafter, as a user may write one: what most often followed a token so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from ramify.engine.speculation.draft import DraftContext, DraftTree


class SuccessorDrafter:
    """Counts successors in finished paths; a draft follows the most frequent ones in a line."""

    def __init__(self) -> None:
        self._followers: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter."""
        return [self._line(context) for context in contexts]

    def _line(self, context: DraftContext) -> DraftTree:
        tokens: list[int] = []
        at = int(context.token_ids[-1])
        while len(tokens) < context.max_depth and self._followers.get(at):
            ((at, _),) = self._followers[at].most_common(1)
            tokens.append(at)
        return DraftTree.from_continuations([tokens], context.max_tokens, context.max_depth)

    def learn(self, token_ids: Sequence[int]) -> None:
        """See Drafter."""
        for token, follower in pairwise(token_ids):
            self._followers[token][follower] += 1
