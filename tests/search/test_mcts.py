"""MCTS by hand: which leaf UCT leads to, what is backed up, rollouts, virtual loss."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import Budget, MonteCarloTreeSearch, Value
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import lines_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
HOPE = {"a\n": 0.2, "b\n": 0.9, "c\n": 0.4, "b\na\n": 0.1, "b\nb\n": 0.3, "b\nc\n": 0.2}


def run_mcts(seed: int = 0, **options: object) -> ScriptedRun:
    def scorer(prompt: str, text: str) -> float:
        return HOPE.get(text, 0.0)

    options = {"scorer": scorer, "depth": 3, "k": 12, "widening": 0.0} | options
    controller = MonteCarloTreeSearch(params=STEP, **options)  # type: ignore[arg-type]
    return run_controller(lines_model(), controller, "P", seed=seed)


def test_uct_leads_as_computed_by_hand() -> None:
    """Value + sqrt(ln(visits above) / visits), after each expansion of three children.

    3 visits: b 0.9 leads. 6: c 0.4 + 1.339, before a 0.2 + 1.339 and b 0.375 + 0.669. 9: a 0.2 +
    1.482, before b 0.375 + 0.741. 12: b 0.375 + 0.788 before c 0.1 + 0.788, and there b b, at 0.3.
    """
    run = run_mcts(simulations=5)
    assert [text for text, _ in run.expansions] == ["", "b\n", "c\n", "a\n", "b\nb\n"]
    assert run.finish is not None
    assert run.finish.stats["expansions"] == 5


def test_without_exploration_the_best_mean_leads_and_ties_go_to_the_earlier() -> None:
    run = run_mcts(simulations=3, exploration=0.0, scorer=lambda prompt, text: 0.5)
    order = [run.tree.completion_text(n) for n in run.tree[0].children]
    first = next(text for text in order if text)
    assert [text for text, _ in run.expansions][:2] == ["", first]


def test_an_expansion_in_vain_counts_as_a_visit_of_no_value() -> None:
    def scorer(prompt: str, text: str) -> Value:
        return Value(score=HOPE.get(text, 0.0), prune=text.startswith("b\n") and text != "b\n")

    # b falls to 0.9 / 2 with a bonus of sqrt(ln 4 / 2): 1.28 is less than c's 1.58
    run = run_mcts(simulations=3, scorer=scorer)
    assert [text for text, _ in run.expansions] == ["", "b\n", "c\n"]


def test_widening_samples_a_step_again() -> None:
    """One sample at a time: with 4 visits the root is expanded for the second time."""
    plain = run_mcts(k=1, simulations=12, depth=9, scorer=lambda prompt, text: 0.5)
    assert [text for text, _ in plain.expansions].count("") == 1
    wide = run_mcts(k=1, simulations=12, depth=9, scorer=lambda prompt, text: 0.5, widening=0.5)
    assert [text for text, _ in wide.expansions].count("") == 3


def test_with_urgency_a_step_is_sampled_again_where_all_below_promise_less() -> None:
    """One sample at a time, the root worth 1, new samples half of it: until b with its 0.9."""
    run = run_mcts(k=1, simulations=9, exploration=0.0, urgency=0.5)
    texts = [text for text, _ in run.expansions]
    first = [run.tree.completion_text(n) for n in run.tree[0].children]
    before = next(i for i, text in enumerate(first) if text == "b\n")
    assert all(text == "" for text in texts[: before + 1]) and texts[before + 1] == "b\n"
    # samples repeat, so the root is worth less and less, and what lies below is met again
    assert run.finish is not None and run.finish.stats["copies"] > 0 and "b\n" in texts[-3:]
    plain = run_mcts(k=1, simulations=9, exploration=0.0, urgency=0.0)
    assert [text for text, _ in plain.expansions].count("") == 1


def test_side_by_side_simulations_go_to_different_leaves() -> None:
    run = run_mcts(simulations=4, parallel=3)
    assert [text for text, _ in run.expansions] == ["", "b\n", "c\n", "a\n"]
    # root, then three leaves at once: two tokens a line
    assert len(run.steps) == 4


def test_rollouts_value_steps_and_the_best_one_stays() -> None:
    """Only a finished text has a value: the share of b in it."""

    def scorer(prompt: str, text: str) -> float:
        return text.count("b") / 3 if text.count("\n") == 3 else 0.0

    run = run_mcts(simulations=3, scorer=scorer, rollout_tokens=8, exploration=0.0, depth=4)
    rollouts = [n for n in run.tree if n.finish_reason == "stop" and n.stop_reason != "\n"]
    assert len(rollouts) >= 6
    assert all(run.tree.completion_text(n.id).count("\n") == 3 for n in rollouts)
    scores = [scorer("", run.tree.completion_text(n.id)) for n in rollouts]
    assert [n.score for n in rollouts] == scores
    alive = [n for n in rollouts if n.state.value == "idle"]
    assert [n.score for n in alive] == [max(scores)]
    assert run.outputs[0] == run.tree.completion_text(alive[0].id)
    # the second expansion is where the best first rollout was
    first = {run.tree.completion_text(n.parent or 0): n.score or 0.0 for n in rollouts[:3]}
    assert first[run.expansions[4][0]] == max(first.values())


def test_a_rollout_may_solve() -> None:
    def scorer(prompt: str, text: str) -> Value:
        return Value(score=0.0, solved=text.count("\n") == 3)

    run = run_mcts(simulations=9, scorer=scorer, rollout_tokens=8)
    assert run.finish is not None
    assert run.finish.solved
    assert run.outputs[0].count("\n") == 3
    assert len(run.expansions) == 1 + 3  # the root, and a rollout from each child


def test_the_budget_ends_it() -> None:
    run = run_mcts(k=2, budget=Budget(tokens=60), widening=0.5)
    assert 60 - 2 * STEP.max_tokens < run.tree.generated_tokens <= 60


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "simulations"),
        ({"simulations": 0}, "simulations"),
        ({"simulations": 2, "k": 0}, "k"),
        ({"simulations": 2, "parallel": 1.5}, "parallel"),
        ({"simulations": 2, "rollout_tokens": -1}, "rollout_tokens"),
        ({"simulations": 2, "exploration": -0.1}, "exploration"),
        ({"simulations": 2, "widening": float("nan")}, "widening"),
    ],
)
def test_options_are_checked(options: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=f"{named}: expected"):
        run_mcts(**options)
