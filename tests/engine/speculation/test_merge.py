"""Continuations against a search by hand, and the best tokens of merged ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.merge import MOST_MATCHES, continuations, merge


def line(*tokens: int) -> DraftTree:
    return DraftTree.from_continuations([tokens], len(tokens), len(tokens))


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_matches_are_those_that_a_search_by_hand_finds(
    tokens: list[int], shortest: int, more: int
) -> None:
    longest = shortest + more
    places, lengths = continuations(
        np.array(tokens), np.array(tokens[-longest:]), shortest, longest
    )
    wanted = []
    for place in range(1, len(tokens)):
        length = 0
        while length < min(longest, place) and tokens[place - length - 1] == tokens[-length - 1]:
            length += 1
        if length >= shortest:
            wanted.append((-length, -place))
    wanted = sorted(wanted)[:MOST_MATCHES]
    assert [(-n, -p) for p, n in zip(places, lengths, strict=True)] == wanted


def test_the_tree_takes_what_is_likely_and_what_is_near() -> None:
    often, once = np.array([1, 2, 3, 4]), np.array([1, 7, 8])
    tree = merge([often, often, once], [1.0, 1.0, 1.0], 4, 9)
    assert tree == line(1, 2, 3, 4)
    # one that came after a longer match weighs more than two others
    tree = merge([often, often, once], [1.0, 1.0, 16.0], 3, 9)
    assert tree == line(1, 7, 8)
    assert merge([often], [1.0], 9, 2) == line(1, 2)
    both = DraftTree((1, 2, 7), (-1, 0, 0))
    assert merge([often, once], [1.0, 1.0], 3, 9) == both
    assert merge([], [], 4, 4).tokens == ()
