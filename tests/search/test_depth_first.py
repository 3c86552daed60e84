"""Depth-first tree of thoughts by hand: order, threshold, backtracking, what is held."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import Budget, DepthFirst, Judge, Value
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import lines_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
HOPE = {"a\n": 0.2, "b\n": 0.9, "c\n": 0.4, "b\na\n": 0.1, "b\nb\n": 0.3, "b\nc\n": 0.35}


def run_dfs(answer: str = "none", *, strict: bool = True, **options: object) -> ScriptedRun:
    """A scorer with hopes; if it is strict, it cuts wrong answers."""

    def scorer(prompt: str, text: str) -> Value:
        is_wrong = strict and text.count("\n") == 3 and text != answer
        return Value(score=HOPE.get(text, 0.0), solved=text == answer, prune=is_wrong)

    options = {"scorer": scorer, "depth": 3, "k": 12, "threshold": 0.25} | options
    controller = DepthFirst(params=STEP, **options)  # type: ignore[arg-type]
    return run_controller(lines_model(), controller, "P")


def test_best_first_below_the_threshold_never_and_back_to_what_is_left() -> None:
    run = run_dfs()
    assert [text for text, _ in run.expansions] == ["", "b\n", "b\nc\n", "b\nb\n", "c\n"]
    # a and everything under b was cut; the last path is what is left
    assert run.alive == ["c\n"]
    assert run.outputs == ["c\n"]


def test_unconfirmed_answers_stay_with_what_leads_to_them() -> None:
    run = run_dfs(strict=False)
    assert {"b\n", "b\nb\n", "b\nc\n"} < set(run.alive)
    assert run.outputs[0].count("\n") == 3


def test_solved_ends_it_before_the_siblings() -> None:
    run = run_dfs("b\nc\na\n")
    assert [text for text, _ in run.expansions] == ["", "b\n", "b\nc\n"]
    assert run.outputs == ["b\nc\na\n"]


def test_equal_values_go_to_the_earlier() -> None:
    run = run_dfs(threshold=0.0, depth=2, scorer=lambda prompt, text: 0.5)
    order = [text for text in run.alive if text.count("\n") == 1]
    assert [text for text, _ in run.expansions] == ["", *order]


def test_a_budget_ends_it_on_its_path() -> None:
    run = run_dfs(budget=Budget(tokens=50))
    assert run.tree.generated_tokens <= 50
    assert run.expansions[:2] == [("", 12), ("b\n", 12)]
    assert run.outputs
    assert run.outputs[0].startswith("b\n")


def test_repeated_rounds_visit_no_state_twice() -> None:
    run = run_dfs(k=2, budget=Budget(tokens=300), threshold=0.0)
    texts = [text for text, _ in run.expansions if text]
    assert len(texts) == len(set(texts))
    assert run.finish is not None
    assert run.finish.stats["rounds"] > 1


def test_the_judge_has_the_say_where_there_is_one() -> None:
    judge = Judge(suffix="?", positive="y", negative="n")
    run = run_dfs(judge=judge, threshold=0.6)
    # the model knows neither label: one half each
    assert [text for text, _ in run.expansions] == [""]


@pytest.mark.parametrize("threshold", [float("nan"), "0.5", True])
def test_threshold_is_checked(threshold: object) -> None:
    with pytest.raises(InputError, match="threshold: expected a number, got"):
        run_dfs(threshold=threshold)
