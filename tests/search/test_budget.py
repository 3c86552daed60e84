"""Budgets and what fits into them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search.budget import Allowance, Budget
from ramify.search.tree import LogicalTree


def tree_with(tokens: int = 0, nodes: int = 0, seconds: float = 0.0) -> LogicalTree:
    tree = LogicalTree([1], "P", 0)
    tree.generated_tokens, tree.elapsed_s = tokens, seconds
    for _ in range(nodes):
        tree.add(0, seed=0)
    return tree


@pytest.mark.parametrize("name", ["tokens", "nodes", "seconds"])
@pytest.mark.parametrize("value", [0, -3, True, "10", float("nan"), float("inf")])
def test_limits_must_be_positive_numbers(name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"budget\.{name}: expected"):
        Budget(**{name: value})  # type: ignore[arg-type]


def test_an_open_budget_is_never_exhausted() -> None:
    budget = Budget()
    assert not budget.is_limited
    assert not budget.exhausted(tree_with(10**9, 100, 1e9))
    assert budget.tokens_left(tree_with()) is None
    assert Allowance(budget, tree_with()).take(7, SamplingParams(max_tokens=9), 1)[0] == 7


@pytest.mark.parametrize(
    ("budget", "before", "after"),
    [
        (Budget(tokens=10), tree_with(tokens=9), tree_with(tokens=10)),
        (Budget(nodes=3), tree_with(nodes=2), tree_with(nodes=3)),
        (Budget(seconds=1.5), tree_with(seconds=1.4), tree_with(seconds=1.5)),
    ],
)
def test_each_limit_exhausts(budget: Budget, before: LogicalTree, after: LogicalTree) -> None:
    assert budget.is_limited
    assert not budget.exhausted(before)
    assert budget.exhausted(after)
    assert Allowance(budget, after).take(1, SamplingParams(), 1)[0] == 0


@given(
    left=st.integers(1, 200),
    asks=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 30)), max_size=6),
)
def test_side_by_side_expansions_fit_together(left: int, asks: list[tuple[int, int, int]]) -> None:
    allowance = Allowance(Budget(tokens=left), tree_with())
    reserved = 0
    for k, length, expected in asks:
        granted, params = allowance.take(k, SamplingParams(max_tokens=length), expected)
        assert granted <= k
        assert params.max_tokens <= length
        if granted:
            assert params.max_tokens >= min(expected, length)  # long enough to end
        else:
            assert left - reserved < min(expected, length)  # not even one fits
        reserved += granted * params.max_tokens
    assert reserved <= left


def test_clipping_keeps_parameters_valid() -> None:
    allowance = Allowance(Budget(tokens=10), tree_with(tokens=4))
    params = SamplingParams(max_tokens=9, min_tokens=8, stop=["x"], temperature=0.5)
    k, clipped = allowance.take(3, params, 3)
    assert (k, clipped.max_tokens, clipped.min_tokens) == (2, 3, 3)
    assert (clipped.stop_strings, clipped.temperature) == (("x",), 0.5)
