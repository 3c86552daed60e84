"""A suffix array over finished paths: what followed the last tokens wherever they occurred.

Places are sorted by the tokens that stand there, as far as matches and drafts reach, so the places
of a match are an interval. Paths that came after the last sorting are searched from end to end, as
is the branch's own path, which holds the prompt.
Source: SuffixDecoding (Oliaro et al. 2024), with a suffix array in place of its trees.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from ramify.engine.speculation.draft import DraftContext, DraftTree
from ramify.engine.speculation.merge import (
    LENGTH_GAIN,
    MOST_MATCHES,
    continuations,
    followed,
    merge,
)

END = -1
"""Stands between paths; no token is equal to it."""
MOST_TOKENS = 1 << 18
"""Tokens kept of finished paths, the latest ones."""
LEAST_UNSORTED = 1 << 11
"""Tokens that may come before places are sorted again; also a quarter of those sorted."""
SORT_DEPTH = 32
"""Tokens by which places are sorted, a power of two."""


class SuffixDrafter:
    """Drafts from all finished paths and from the branch's own."""

    def __init__(self, *, min_match: int = 1, max_match: int = 8) -> None:
        self._min, self._max = min_match, min(max_match, SORT_DEPTH)
        self._sorted: list[int] = []  # the text
        self._places: list[int] = []  # its places, sorted by what stands there
        self._tail: list[int] = []  # the text that came later

    def learn(self, token_ids: Sequence[int]) -> None:
        """See Drafter."""
        self._tail += [END, *token_ids]
        if len(self._tail) > max(LEAST_UNSORTED, len(self._sorted) // 4):
            self._sorted = [*self._sorted, *self._tail][-MOST_TOKENS:]
            self._places = sort_places(np.array(self._sorted), SORT_DEPTH).tolist()
            self._tail = []

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter."""
        tail = np.array([*self._tail, END], dtype=np.int64)
        return [self._draft(context, tail) for context in contexts]

    def _draft(self, context: DraftContext, tail: np.ndarray) -> DraftTree:
        own, depth = context.token_ids, context.max_depth
        suffix = own[-self._max :]
        paths, weights = [], []
        for text in (own, tail):
            found = followed(text, *continuations(text, suffix, self._min, self._max), depth)
            paths += found[0]
            weights += found[1]
        places, size = self._lookup(suffix.tolist())
        paths += [np.array(self._sorted[place : place + depth]) for place in places]
        weights += [LENGTH_GAIN**size] * len(places)
        return merge([_until_end(path) for path in paths], weights, context.max_tokens, depth)

    def _lookup(self, suffix: list[int]) -> tuple[list[int], int]:
        """Places behind the longest match in the sorted text, and the match's length."""
        found: tuple[list[int], int] = ([], 0)
        shortest, longest = self._min, len(suffix)
        while shortest <= longest:  # a match is one of every shorter suffix as well
            size = (shortest + longest) // 2
            places = self._find(suffix[-size:])
            if places:
                found = places, size
                shortest = size + 1
            else:
                longest = size - 1
        return found

    def _find(self, pattern: list[int]) -> list[int]:
        """Places behind occurrences of a pattern; of many, some from all over the interval."""
        size = len(pattern)

        def at(place: int) -> list[int]:
            return self._sorted[place : place + size]

        begin = bisect_left(self._places, pattern, key=at)
        end = bisect_right(self._places, pattern, lo=begin, key=at)
        step = max((end - begin) // MOST_MATCHES, 1)
        return [place + size for place in self._places[begin:end:step][:MOST_MATCHES]]


def sort_places(text: np.ndarray, depth: int) -> np.ndarray:
    """[n] int64, the places of `text` [n] int64 sorted by the `depth` tokens that stand there.

    Ranks by 1, 2, 4, ... tokens come from one another (prefix doubling, Manber and Myers 1990).
    """
    _, rank = np.unique(text, return_inverse=True)
    size = 1
    while size < depth:
        behind = np.full(len(text), -1, dtype=np.int64)
        behind[:-size] = rank[size:]
        _, rank = np.unique(rank * (len(text) + 1) + behind + 1, return_inverse=True)
        size *= 2
    return np.argsort(rank, kind="stable")


def _until_end(path: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(path == END)
    return path[: ends[0]] if len(ends) else path
