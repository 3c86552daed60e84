"""Algorithms by name."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.search import (
    BeamSearch,
    BestOfN,
    Budget,
    DepthFirst,
    DiverseBeamSearch,
    DiverseVerifierTreeSearch,
    MonteCarloTreeSearch,
    ParticleFilter,
    Rebase,
    Sample,
    TreeOfThoughts,
    make_controller,
)


def test_makes_each_algorithm() -> None:
    params = SamplingParams(n=2)
    assert isinstance(make_controller("sample", params=params), Sample)
    assert isinstance(make_controller("best_of_n", params=params, select="logprob"), BestOfN)
    vote = make_controller("self_consistency", params=params, answer=str)
    assert isinstance(vote, BestOfN)
    beams = make_controller("beam", params=BeamSearchParams(), eos_token_ids=(2,))
    assert isinstance(beams, BeamSearch)
    groups = make_controller("diverse_beam", params=BeamSearchParams(), num_groups=4)
    assert isinstance(groups, DiverseBeamSearch)
    tot = make_controller("tot", params=params, k=2, width=1, depth=3)
    assert isinstance(tot, TreeOfThoughts)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tot_dfs", DepthFirst),
        ("dvts", DiverseVerifierTreeSearch),
        ("rebase", Rebase),
        ("mcts", MonteCarloTreeSearch),
        ("smc", ParticleFilter),
    ],
)
def test_makes_each_search_over_steps(name: str, kind: type) -> None:
    options = {"params": SamplingParams(), "depth": 2, "budget": Budget(tokens=9)}
    assert isinstance(make_controller(name, **options), kind)
    with pytest.raises(InputError, match=f"algorithm '{name}': expected options"):
        make_controller(name, widht=2, **options)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="one of sample, best_of_n.*mcts, smc, .*got 'mcts2'"):
        make_controller("mcts2")


@pytest.mark.parametrize("options", [{}, {"params": SamplingParams(), "widht": 2}])
def test_wrong_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="algorithm 'sample': expected options"):
        make_controller("sample", **options)
