"""The suffix array against sorting by hand, and what it finds in finished paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify import SamplingParams
from ramify.engine.speculation import suffix
from ramify.engine.speculation.draft import DraftContext, DraftTree
from ramify.engine.speculation.suffix import END, SuffixDrafter, sort_places


def context(tokens: list[int], most: int = 4, depth: int = 4) -> DraftContext:
    return DraftContext("b", np.array(tokens), SamplingParams(), 0, most, depth)


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=80), st.sampled_from([1, 2, 8]))
def test_places_are_sorted_by_what_stands_there(text: list[int], depth: int) -> None:
    places = sort_places(np.array(text), depth).tolist()
    assert sorted(places) == list(range(len(text)))
    heads = [text[place : place + depth] for place in places]
    assert heads == sorted(heads)


@pytest.mark.parametrize("is_sorted", [False, True])
def test_finished_paths_tell_what_follows(monkeypatch: pytest.MonkeyPatch, is_sorted: bool) -> None:
    monkeypatch.setattr(suffix, "LEAST_UNSORTED", 0 if is_sorted else 1000)
    drafter = SuffixDrafter()
    drafter.learn([5, 6, 1, 2, 3, 4])
    drafter.learn([9, 1, 2, 8])
    # the longest match decides: [6, 1, 2] was followed by 3, 4 and then by nothing
    (draft,) = drafter.propose([context([7, 6, 1, 2], most=2)])
    assert draft == DraftTree((3, 4), (-1, 0))
    (draft,) = drafter.propose([context([9, 1, 2], most=1)])
    assert draft == DraftTree((8,), (-1,))
    # the branch's own path, which nobody finished, counts as well
    (draft,) = drafter.propose([context([40, 41, 42, 40], most=2)])
    assert draft == DraftTree((41, 42), (-1, 0))
    (draft,) = drafter.propose([context([50])])
    assert draft.tokens == ()


def test_a_long_history_is_sorted_now_and_then_and_forgotten_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suffix, "LEAST_UNSORTED", 20)
    monkeypatch.setattr(suffix, "MOST_TOKENS", 100)
    drafter = SuffixDrafter()
    for first in range(0, 600, 6):
        drafter.learn(list(range(first, first + 6)))
    (draft,) = drafter.propose([context([591, 592])])
    assert draft.tokens == (593,)
    (draft,) = drafter.propose([context([1, 2])])
    assert draft.tokens == ()
    assert END not in draft.tokens
