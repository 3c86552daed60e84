"""REBASE by hand: shares by value, answers that take theirs, levels that wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import Budget, Rebase, Value
from ramify.search.rebase import shares_of
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import lines_model, table_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
HOPE = {"a\n": 0.2, "b\n": 0.9, "c\n": 0.4, "b\na\n": 0.7}


def run_rebase(**options: object) -> ScriptedRun:
    def scorer(prompt: str, text: str) -> float:
        return HOPE.get(text, 0.0)

    options = {"scorer": scorer, "depth": 2, "width": 12} | options
    controller = Rebase(params=STEP, **options)  # type: ignore[arg-type]
    return run_controller(lines_model(depth=2), controller, "P")


def test_shares_by_hand() -> None:
    # exp(0), exp(-2.5), exp(-3.5) of 12: 10.79, 0.89, 0.33
    assert shares_of([0.9, 0.4, 0.2], 12, 0.2) == [11, 1, 0]
    assert shares_of([0.5, 0.5, 0.5], 4, 0.2) == [2, 1, 1]  # ties: the earlier is rounded up
    assert shares_of([0.1, 0.9], 7, 1e-3) == [0, 7]
    assert shares_of([0.3], 0, 1.0) == [0]
    assert shares_of([], 5, 1.0) == []


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    total=st.integers(0, 40),
    balance=st.floats(0.01, 10),
)
def test_shares_sum_up_and_follow_the_values(
    values: list[float], total: int, balance: float
) -> None:
    shares = shares_of(values, total, balance)
    assert sum(shares) == total
    for value, share in zip(values, shares, strict=True):
        assert all(share >= other - 1 for v, other in zip(values, shares, strict=True) if v < value)


def test_a_level_is_shared_out_by_value() -> None:
    run = run_rebase()
    assert run.expansions[0] == ("", 12)
    assert sorted(run.expansions[1:]) == [("b\n", 11), ("c\n", 1)]
    assert "a\n" not in run.alive  # its share was nothing
    assert run.outputs == ["b\na\n"]


def test_answers_take_their_share_of_the_width() -> None:
    """'a' ends at once: of 6, five are left for b and c, which are worth the same."""
    table = {"": {"a": 0.4, "b": 0.3, "c": 0.3}, "b": {"\n": 1.0}, "c": {"\n": 1.0}}
    controller = Rebase(params=STEP, depth=2, width=6, scorer=lambda prompt, text: 0.5)
    for seed in range(20):
        run = run_controller(table_model(table), controller, "P", seed=seed)
        if len(run.alive) >= 3:
            break
        controller = Rebase(params=STEP, depth=2, width=6, scorer=lambda prompt, text: 0.5)
    first = [text for text in run.alive if text in ("b\n", "c\n")]
    assert run.expansions == [("", 6), (first[0], 3), (first[1], 2)]


def test_with_a_budget_rounds_are_repeated_until_it_is_used_up() -> None:
    run = run_rebase(width=3, budget=Budget(tokens=40))
    assert run.finish is not None
    assert run.finish.stats["rounds"] > 2
    assert 40 - STEP.max_tokens < run.tree.generated_tokens <= 40
    assert [k for text, k in run.expansions if text == ""][:2] == [3, 3]
    assert run_rebase(width=3).finish.stats["rounds"] == 1  # type: ignore[union-attr]


def test_solved_ends_it_at_once() -> None:
    def scorer(prompt: str, text: str) -> Value:
        return Value(score=0.1, solved=text == "c\n")

    run = run_rebase(scorer=scorer)
    assert (run.outputs, run.expansions) == (["c\n"], [("", 12)])
    assert run.finish is not None
    assert run.finish.solved


@pytest.mark.parametrize("balance", [0.0, -1.0, float("nan"), float("inf"), True])
def test_balance_is_checked(balance: float) -> None:
    with pytest.raises(InputError, match="balance: expected a number > 0"):
        run_rebase(balance=balance)
