"""Counting what a windowed layer reads, against a loop over the kernel's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, build_plan
from ramify.attention.plan.windowed import windowed_tokens
from ramify.attention.plan.work import WorkList, make_work
from ramify.core.forest import Forest
from ramify.testing.trees import RandomForestSpec, prefill, random_forest


def counted(work: WorkList, window: int) -> int:
    total = 0
    for units in work.units.values():
        for row0, rows, piece_begin, piece_end, begin, end, _, _ in units:
            seeing = [p for p in work.rows[1, row0 : row0 + rows].tolist() if p >= 0]
            if not seeing:
                continue
            oldest = min(seeing) - window + 1
            for _, length, _, _, first, *_ in work.pieces[piece_begin:piece_end]:
                total += sum(first + token >= oldest for token in range(length))
            total += sum(position >= oldest for position in work.tokens[3, begin:end])
    return total


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    max_length=st.sampled_from([1, 20, 200]),
    window=st.sampled_from([1, 30, 5000]),
)
def test_the_count_follows_the_kernel(method: str, seed: int, max_length: int, window: int) -> None:
    case = random_forest(seed, RandomForestSpec(max_length=max_length, max_nodes=25))
    work = make_work(build_plan(case.forest, method), case.forest, 4)
    read = windowed_tokens(work, window)
    assert read == counted(work, window)
    assert read == work.read_tokens if window == 5000 else read <= work.read_tokens


def test_a_long_context_costs_a_window() -> None:
    forest = prefill(prompt=100_000, chunk=1).forest
    assert windowed_tokens(make_work(build_plan(forest, "flatten"), forest, 4), 4096) == 4096


def test_rows_that_see_nothing_read_nothing() -> None:
    forest = Forest.from_nodes([-1, -1], [3, 0], [0, 3], [1, 0, 0], [0, 3, 0])
    work = make_work(build_plan(forest, "flatten"), forest, 1)
    assert windowed_tokens(work, 2) == counted(work, 2)
    empty = Forest.from_nodes([-1], [3], [0], [])
    assert windowed_tokens(make_work(build_plan(empty, "flatten"), empty, 1), 2) == 0
