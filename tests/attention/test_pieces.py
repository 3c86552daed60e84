"""Pieces of the cache against the reference's walk over ancestors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, build_plan
from ramify.attention.plan.pieces import visible
from ramify.attention.reference import visibility_ref
from ramify.core.forest import Forest
from ramify.testing.trees import RandomForestSpec, random_forest


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_rows=st.sampled_from([1, 20, 200]))
def test_pieces_name_the_rows_that_see_them(seed: int, num_rows: int) -> None:
    case = random_forest(seed, RandomForestSpec(num_rows=num_rows, max_length=20))
    slots, seen = visibility_ref(case.forest)
    rows_of = dict(zip(slots.tolist(), seen.numpy()[case.forest.row_order].T, strict=True))
    found = visible(case.forest)
    columns = (found.pieces.slot, found.pieces.length, found.position, found.lo, found.hi)
    listed = []
    for slot, length, position, lo, hi in zip(*(c.tolist() for c in columns), strict=True):
        rows = np.flatnonzero(rows_of[slot])
        assert (lo, hi) == (rows[0], rows[-1] + 1) and len(rows) == hi - lo
        for token in range(length):
            listed.append(slot + token)
            # of the piece's rows, those that end at the token or after it
            ends = case.forest.ordered_position[lo:hi] >= position + token
            assert (rows_of[slot + token][lo:hi] == ends).all()
    assert sorted(listed) == sorted(slot for slot, rows in rows_of.items() if rows.any())


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_run_hides_nothing_behind_it(method: str) -> None:
    runs = [[(9, 0), (4, 2), (0, 0), (7, 1)]]
    plan = build_plan(Forest.from_nodes([-1], [3], None, [0], runs=runs), method)
    assert plan.read_tokens == plan.unique_tokens == 3
    assert sorted(plan.piece_slot.tolist()) == [4, 7]
