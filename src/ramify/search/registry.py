"""Search algorithms by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ramify.core.errors import InputError, expected_got
from ramify.search.beam import BeamSearch
from ramify.search.best_of_n import BestOfN
from ramify.search.controller import Controller
from ramify.search.depth_first import DepthFirst
from ramify.search.diverse_beam import DiverseBeamSearch
from ramify.search.dvts import DiverseVerifierTreeSearch
from ramify.search.graph_of_thoughts import GraphOfThoughts
from ramify.search.mcts import MonteCarloTreeSearch
from ramify.search.particle_filter import ParticleFilter
from ramify.search.rebase import Rebase
from ramify.search.replay import Replay
from ramify.search.sample import Sample
from ramify.search.tree_of_thoughts import TreeOfThoughts

ALGORITHMS: dict[str, Callable[..., Controller]] = {
    "sample": Sample,
    "best_of_n": BestOfN,
    "self_consistency": partial(BestOfN, select="majority"),
    "beam": BeamSearch,
    "diverse_beam": DiverseBeamSearch,
    "tot": TreeOfThoughts,
    "tot_dfs": DepthFirst,
    "dvts": DiverseVerifierTreeSearch,
    "rebase": Rebase,
    "mcts": MonteCarloTreeSearch,
    "smc": ParticleFilter,
    "got": GraphOfThoughts,
    "replay": Replay,
}


def make_controller(algorithm: str, /, **options: Any) -> Controller:
    """Make a controller by name; `options` are the arguments of its class.

    Raises:
        InputError: the name is unknown, an option is unknown or missing, or its value is wrong.
    """
    make = ALGORITHMS.get(algorithm)
    if make is None:
        names = ", ".join(ALGORITHMS)
        raise InputError(expected_got("algorithm", f"one of {names}", repr(algorithm)))
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        wanted = f"options {inspect.signature(make)}"
        got = f"{sorted(options)} ({error})"
        raise InputError(expected_got(f"algorithm {algorithm!r}", wanted, got)) from error
    return make(**options)
