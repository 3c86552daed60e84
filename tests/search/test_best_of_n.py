"""Best-of-n and self-consistency: selection, ties, budgets, early stop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import BestOfN, Budget, Value
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import table_model

# three answers of one letter each, ended by the end token
LETTERS = table_model({"": {"a": 0.5, "b": 0.3, "c": 0.2}})
LONG = table_model({"a" * i: {"a": 1.0} for i in range(64)})
PARAMS = SamplingParams(n=12, max_tokens=4)


def points(table: dict[str, float]) -> BestOfN:
    return BestOfN(PARAMS, scorer=lambda prompt, text: table[text])


def marked(run: ScriptedRun) -> list[tuple[str, float | None]]:
    assert run.finish is not None
    return [(run.tree.completion_text(n), run.tree[n].score) for n in run.finish.outputs]


def test_selects_by_score() -> None:
    run = run_controller(LETTERS, points({"a": 0.1, "b": 0.3, "c": 0.2}), "P")
    assert set(run.outputs) == {"a", "b", "c"}
    assert [text for text, _ in marked(run)] == sorted(run.outputs, key="bca".index)
    assert dict(marked(run)) == {"a": 0.1, "b": 0.3, "c": 0.2}


def test_equal_scores_go_to_the_more_probable_then_the_earlier() -> None:
    run = run_controller(LETTERS, points({"a": 0.5, "b": 0.5, "c": 0.5}), "P")
    assert run.finish is not None
    assert run.outputs == sorted(run.outputs)  # a is more probable than b, b than c
    same = [n for n in run.finish.outputs if run.tree.completion_text(n) == "a"]
    assert len(same) > 1
    assert same == sorted(same)


def test_majority_vote_wins_over_score_and_none_abstains() -> None:
    run = run_controller(
        LETTERS,
        BestOfN(
            PARAMS,
            scorer=lambda prompt, text: {"a": 0.0, "b": 1.0, "c": 0.5}[text],
            select="majority",
            answer=lambda text: None if text == "a" else text,
        ),
        "P",
    )
    votes = {text: run.outputs.count(text) for text in "abc"}
    assert votes["a"] > votes["b"] > votes["c"] > 0  # the case is worth its name
    total = votes["b"] + votes["c"]
    assert dict(marked(run)) == {"a": 0.0, "b": votes["b"] / total, "c": votes["c"] / total}
    assert run.outputs == ["b"] * votes["b"] + ["c"] * votes["c"] + ["a"] * votes["a"]


def test_tied_votes_go_to_the_higher_score() -> None:
    def vote(seed: int) -> list[str]:
        controller = BestOfN(
            SamplingParams(n=6, max_tokens=4),
            scorer=lambda prompt, text: 1.0 if text == "c" else 0.0,
            select="majority",
            answer=str,
        )
        return run_controller(LETTERS, controller, "P", seed=seed).outputs

    tied = next(texts for seed in range(100) if sorted(texts := vote(seed)) == list("aabbcc"))
    assert tied == list("ccaabb")


def test_selects_by_mean_logprob() -> None:
    # "b" is less probable at first, but longer and sure: its mean is higher
    model = table_model({"": {"a": 0.6, "b": 0.4}, "b": {"b": 1.0}, "bb": {"b": 1.0}})
    run = run_controller(model, BestOfN(PARAMS, select="logprob"), "P")
    assert run.outputs == sorted(run.outputs, reverse=True)
    assert set(run.outputs) == {"bbb", "a"}


def test_stops_at_the_first_solved_sample() -> None:
    model = table_model({"": {"a": 0.5, "b": 0.5}, **{"b" * i: {"b": 1.0} for i in range(1, 9)}})

    def scorer(prompt: str, text: str) -> Value:
        assert prompt == "P"
        return Value(score=0.2, solved=text == "a")

    run = run_controller(model, BestOfN(SamplingParams(n=8, max_tokens=9), scorer), "P")
    assert run.finish is not None
    assert run.finish.solved
    assert set(run.outputs) == {"a"}
    assert run.tree.generated_tokens < 8 * 9 / 2  # growing branches were cut


def test_a_score_that_is_enough_ends_it_too() -> None:
    params = SamplingParams(n=1, max_tokens=4)
    budget = Budget(tokens=400)

    def run(enough: float) -> ScriptedRun:
        points = {"a": 0.1, "b": 0.3, "c": 0.2}
        search = BestOfN(params, lambda prompt, text: points[text], budget=budget, enough=enough)
        return run_controller(LETTERS, search, "P")

    found = run(0.3)
    assert found.finish is not None
    assert found.finish.solved
    assert found.outputs[0] == "b"
    assert "b" not in found.outputs[1:]
    missed = run(0.31)
    assert missed.tree.generated_tokens > 400 - 4


def test_a_solved_sample_goes_first_even_against_the_vote() -> None:
    def scorer(prompt: str, text: str) -> Value:
        return Value(score=0.0, solved=text == "b")

    model = table_model({"": {"a": 0.9, "b": 0.1}})
    run = run_controller(
        model,
        BestOfN(PARAMS, scorer, select="majority", answer=str, budget=Budget(tokens=400)),
        "P",
    )
    assert run.finish is not None
    assert run.finish.solved
    assert run.outputs[0] == "b"


@settings(max_examples=40)
@given(tokens=st.integers(1, 60), n=st.integers(1, 9), length=st.integers(1, 12))
def test_a_token_budget_is_used_and_never_exceeded(tokens: int, n: int, length: int) -> None:
    controller = BestOfN(
        SamplingParams(n=n, max_tokens=length, ignore_eos=True),
        scorer=lambda prompt, text: 0.0,
        budget=Budget(tokens=tokens),
    )
    run = run_controller(LONG, controller, "P")
    assert run.tree.generated_tokens <= tokens
    assert run.tree.generated_tokens > tokens - length  # less than one sample is left
    assert len(run.outputs) == max(tokens // length, 1)


def test_short_samples_do_not_leave_the_budget_unused() -> None:
    """Samples far below max_tokens: what a round really used decides about the next."""
    controller = BestOfN(
        SamplingParams(n=4, max_tokens=50), scorer=lambda p, t: 0.0, budget=Budget(tokens=210)
    )
    run = run_controller(LETTERS, controller, "P")
    assert run.tree.generated_tokens == 210
    assert all(len(text) == 1 for text in run.outputs)


def test_node_and_time_budgets_end_rounds() -> None:
    controller = BestOfN(
        SamplingParams(n=4, max_tokens=4), scorer=lambda p, t: 0.0, budget=Budget(nodes=10)
    )
    assert len(run_controller(LETTERS, controller, "P").outputs) == 10
    controller = BestOfN(
        SamplingParams(n=4, max_tokens=4), scorer=lambda p, t: 0.0, budget=Budget(seconds=3.0)
    )
    # a round takes two steps: rounds start at 0 s and 2 s
    assert len(run_controller(LETTERS, controller, "P", step_s=1.0).outputs) == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"select": "best"}, "select"),
        ({"select": "score"}, "scorer"),
        ({"select": "majority"}, "answer"),
    ],
)
def test_incomplete_options_are_refused(options: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=f"{named}: expected"):
        BestOfN(PARAMS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("verdict", ["good", None, True, float("nan"), Value(score=float("nan"))])
def test_a_scorer_must_return_a_number(verdict: object) -> None:
    with pytest.raises(InputError, match="scorer: expected"):
        run_controller(LETTERS, BestOfN(PARAMS, scorer=lambda p, t: verdict), "P")  # type: ignore[arg-type, return-value]
