"""A token tree with short cuts, for every test of the cache."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ramify.cache import Cursor, TokenTree


class QuickTree(TokenTree):
    """A `TokenTree` whose paths can be computed, cached and read in one call."""

    def compute(self, cursor: Cursor) -> None:
        """Give every token of the path a slot and mark it computed."""
        for node in self.path(cursor):
            self.reserve_slots(node, len(node.tokens))
            self.mark_computed(node, len(node.tokens))

    def opened(self, tokens: Sequence[int], *, reuse: bool = True) -> Cursor:
        """A fully computed live path."""
        cursor = self.open(tokens, reuse=reuse)
        self.compute(cursor)
        return cursor

    def cached(self, tokens: Sequence[int], *, reuse: bool = True) -> int:
        """Leave a path behind as prefix cache; returns the slots that closing it freed."""
        return self.close(self.opened(tokens, reuse=reuse), keep=True)

    def grow(self, cursor: Cursor, tokens: Sequence[int]) -> None:
        """Append tokens to a path and compute them."""
        self.append(cursor, tokens)
        self.compute(cursor)

    def slots(self, cursor: Cursor) -> list[int]:
        """Slots of the path's tokens, in order."""
        return [slot for node in self.path(cursor) for slot in self.slots_of(node).tolist()]


@pytest.fixture
def make_tree() -> type[QuickTree]:
    return QuickTree
