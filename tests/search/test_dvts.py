"""DVTS by hand: each subtree keeps its best step, and none waits for another."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import Budget, DiverseVerifierTreeSearch, Value
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import lines_model, table_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
# 12 samples of three equal letters: all three are among them
HOPE = {"a\n": 0.2, "b\n": 0.9, "c\n": 0.4, "b\na\n": 0.1, "b\nb\n": 0.3, "b\nc\n": 0.3}


def run_dvts(**options: object) -> ScriptedRun:
    def scorer(prompt: str, text: str) -> float:
        return HOPE.get(text, 0.0)

    options = {"scorer": scorer, "depth": 2, "width": 2, "k": 12} | options
    controller = DiverseVerifierTreeSearch(params=STEP, **options)  # type: ignore[arg-type]
    return run_controller(lines_model(depth=2), controller, "P")


def test_each_subtree_keeps_its_best_step_and_cuts_the_others() -> None:
    run = run_dvts()
    assert run.expansions == [("", 12), ("", 12), ("b\n", 12), ("b\n", 12)]
    first, second = run.alive[:2], run.alive[2:]
    assert first == ["b\n", "b\n"]
    # b and c tie below b: the earlier one stays, in each subtree on its own
    best = [n for n in run.tree if n.score == 0.3]
    assert second == [run.tree.completion_text(n.id) for n in best if n.state.value == "idle"]
    assert len(second) == 2
    assert run.outputs == second[:1]
    assert run.finish is not None
    assert run.finish.stats["copies"] == 4 * 12 - 4 * 3
    assert run.finish.stats["rounds"] == 1


def test_copies_in_another_subtree_are_no_copies() -> None:
    run = run_dvts(num_outputs=2)
    assert len(run.outputs) == 2


def test_no_subtree_waits_for_another() -> None:
    """Lines of 2 and 6 tokens, the other way round on the next level: 8 steps, not 12."""
    table = {"": {"a": 0.5, "b": 0.5}, "a": {"\n": 1.0}}
    table |= {"b" * i: {"b": 1.0} for i in range(1, 5)} | {"b" * 5: {"\n": 1.0}}
    table |= {"a\n" + "b" * i: {"b": 1.0} for i in range(5)} | {"a\n" + "b" * 5: {"\n": 1.0}}
    table |= {"b" * 5 + "\n": {"a": 1.0}, "b" * 5 + "\na": {"\n": 1.0}}
    params = SamplingParams(max_tokens=9, stop="\n", include_stop_str_in_output=True)
    for seed in range(20):
        controller = DiverseVerifierTreeSearch(params=params, depth=2, width=2, k=1)
        run = run_controller(table_model(table), controller, "P", seed=seed)
        if len({text for text, _ in run.expansions}) == 3:
            break
    assert len({text for text, _ in run.expansions}) == 3
    assert len(run.steps) == 8


def test_a_dead_subtree_makes_room_for_another_while_the_budget_lasts() -> None:
    def scorer(prompt: str, text: str) -> Value:
        return Value(score=0.5, prune=text.startswith("b"), solved=text == "a\nc\n")

    run = run_dvts(scorer=scorer, width=1, k=1, budget=Budget(tokens=200))
    assert run.finish is not None
    assert run.finish.solved
    assert run.outputs == ["a\nc\n"]
    assert run.finish.stats["illegal"] >= 1
    alone = run_dvts(scorer=lambda prompt, text: Value(score=0.0, prune=True), width=1, k=1)
    assert alone.expansions == [("", 1)]
    assert alone.outputs == []


def test_an_exhausted_budget_ends_it_where_it_is() -> None:
    """12 branches of at most 4 tokens are set aside, 24 tokens used; 8 buy four of 2 more."""
    run = run_dvts(width=1, budget=Budget(tokens=48 - 16))
    assert run.expansions == [("", 8), ("b\n", 8)]
    assert run.tree.generated_tokens == 32


@pytest.mark.parametrize("name", ["width", "k", "depth", "num_outputs"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: expected an int >= 1, got 0"):
        run_dvts(**{name: 0})
