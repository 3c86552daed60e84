"""Continuations found in text, merged into the draft tree that most likely holds what follows.

A continuation that was seen often, recently or after a longer match weighs more. A tree's token is
worth the weight of the continuations through it, less the deeper it stands; the best are taken.
Worths fall from a parent to its children, so the best tokens are a tree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.shape import ROOT

DECAY = 0.85
"""Chance, guessed, that a text that went along with another so far does so by another token."""
LENGTH_GAIN = 4.0
"""How much more a match weighs that is longer by a token."""
MOST_MATCHES = 32
"""Matches that are looked at; the latest are taken."""


def merge(
    paths: Sequence[np.ndarray], weights: Sequence[float], max_tokens: int, max_depth: int
) -> DraftTree:
    """The draft tree of the most probable `max_tokens` tokens.

    Args:
        paths: continuations, integer arrays; earlier ones win ties.
        weights: of each, positive.
    """
    worth: list[float] = []
    tokens: list[int] = []
    parents: list[int] = []
    index: dict[tuple[int, int], int] = {}
    for path, weight in zip(paths, weights, strict=True):
        at, value = ROOT, weight
        for token in path[:max_depth].tolist():
            value *= DECAY
            place = index.setdefault((at, token), len(tokens))
            if place == len(tokens):
                tokens.append(token)
                parents.append(at)
                worth.append(0.0)
            worth[place] += value
            at = place
    chosen = sorted(sorted(range(len(tokens)), key=lambda i: -worth[i])[:max_tokens])
    new = {ROOT: ROOT} | {old: place for place, old in enumerate(chosen)}
    return DraftTree(tuple(tokens[i] for i in chosen), tuple(new[parents[i]] for i in chosen))


def continuations(
    tokens: np.ndarray, suffix: np.ndarray, min_match: int, max_match: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where a text goes on after what a path ends with, longest match and latest place first.

    Args:
        tokens: [n] int64, the text.
        suffix: [m] int64, the path's last tokens.
        min_match, max_match: tokens that must agree, and that are compared.
    Returns:
        [k] int64 each, k <= MOST_MATCHES: places in `tokens` behind a match, and its length.
    """
    places = np.flatnonzero(tokens[:-1] == suffix[-1]) + 1
    lengths = np.ones(len(places), dtype=np.int64)
    for size in range(2, min(max_match, len(suffix)) + 1):
        longer = (lengths == size - 1) & (places >= size)
        longer[longer] = tokens[places[longer] - size] == suffix[-size]
        lengths += longer
    order = np.lexsort((-places, -lengths))[:MOST_MATCHES]
    order = order[lengths[order] >= min_match]
    return places[order], lengths[order]


def followed(
    tokens: np.ndarray, places: np.ndarray, lengths: np.ndarray, max_depth: int
) -> tuple[list[np.ndarray], list[float]]:
    """What follows each place of a text, and its weight by the length of the match."""
    paths = [tokens[place : place + max_depth] for place in places.tolist()]
    return paths, (LENGTH_GAIN ** lengths.astype(np.float64)).tolist()
