"""Particle filtering by hand: systematic draws, weights by odds, populations."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.core.params import SamplingParams
from ramify.search import Budget, ParticleFilter, Value
from ramify.search.particle_filter import odds, systematic
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import lines_model, table_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
HOPE = {"a\n": 0.0, "b\n": 0.5, "c\n": 0.75}  # odds of 0, 1 and 3


def run_smc(seed: int = 0, **options: object) -> ScriptedRun:
    def scorer(prompt: str, text: str) -> float:
        return HOPE.get(text, 0.5)

    options = {"scorer": scorer, "depth": 2, "width": 12} | options
    controller = ParticleFilter(params=STEP, **options)  # type: ignore[arg-type]
    return run_controller(lines_model(depth=2), controller, "P", seed=seed)


def test_systematic_by_hand() -> None:
    # points at 1/8, 3/8, 5/8, 7/8; shares end at 1/4, 1/2, 1
    assert systematic([1, 1, 2], 4, 0.5) == [0, 1, 2, 2]
    assert systematic([1, 1, 2], 2, 0.0) == [0, 2]  # a point on a border belongs to what follows
    assert systematic([0, 1, 0], 3, 0.9) == [1, 1, 1]


@given(
    weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9),
    count=st.integers(1, 30),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_a_place_is_drawn_its_share_of_times(
    weights: list[float], count: int, uniform: float
) -> None:
    drawn = Counter(systematic(weights, count, uniform))
    assert drawn.total() == count
    for place, weight in enumerate(weights):
        exact = count * weight / sum(weights)
        assert math.floor(exact - 1e-6) <= drawn[place] <= math.floor(exact + 1e-6) + 1


def test_odds_are_bounded() -> None:
    assert odds(0.75) == pytest.approx(3.0)
    assert odds(0.5) == 1.0
    assert (odds(1.0), odds(7.0), odds(0.0), odds(-1.0)) == (1e6, 1e6, 1e-6, 1e-6)


def test_particles_are_drawn_by_odds_and_the_others_cut() -> None:
    run = run_smc()
    assert run.expansions[0] == ("", 12)
    again = run.expansions[1:]
    assert sum(k for _, k in again) == 12
    born = Counter(run.tree[n].text for n in run.tree[0].children)
    assert min(born.values()) > 0  # the case is worth its name
    weight = born["b\n"] + 3 * born["c\n"]
    for text, k in again:
        share = 12 * {"b\n": 1, "c\n": 3}[text] / weight
        assert math.floor(share) <= k <= math.floor(share) + 1
    assert "a\n" not in run.alive


def test_same_seed_same_draws() -> None:
    assert run_smc(seed=4).expansions == run_smc(seed=4).expansions
    assert len({tuple(run_smc(seed=seed).expansions) for seed in range(6)}) > 1


def test_answers_stay_in_the_population_and_grow_no_more() -> None:
    """'a' is an answer at once, as likely as b: about half of the population stays with it."""
    table = {"": {"a": 0.5, "b": 0.5}, "b": {"\n": 1.0}, "b\n": {"a": 1.0}}
    controller = ParticleFilter(
        params=STEP, depth=3, width=8, scorer=lambda prompt, text: 0.5, num_outputs=20
    )
    run = run_controller(table_model(table), controller, "P", seed=1)
    num_a = Counter(run.tree[n].text for n in run.tree[0].children)["a"]
    assert 0 < num_a < 8
    assert {text for text, _ in run.expansions} == {"", "b\n"}
    assert sum(k for text, k in run.expansions if text) == 8 - num_a
    assert Counter(run.outputs) == {"a": num_a, "b\na": 8 - num_a}


def test_what_breaks_the_rules_is_replaced() -> None:
    def scorer(prompt: str, text: str) -> Value:
        return Value(score=0.5, prune=text.startswith(("a", "b")))

    run = run_smc(scorer=scorer)
    assert {text for text, _ in run.expansions} == {"", "c\n"}
    assert sum(k for text, k in run.expansions if text) == 12


def test_with_a_budget_populations_are_repeated() -> None:
    run = run_smc(width=3, budget=Budget(tokens=50))
    assert run.finish is not None
    assert run.finish.stats["rounds"] > 2
    assert 50 - STEP.max_tokens < run.tree.generated_tokens <= 50
