"""The searches that are compared: equal branches at a level, and values that need no model.

A step's value is drawn from its place in the tree. Both forms then make the same choices even
where rounding lets a token differ, and what is timed is the tree, not a scorer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.core.seeds import mix64
from ramify.search.controller import Controller
from ramify.search.dvts import DiverseVerifierTreeSearch
from ramify.search.mcts import MonteCarloTreeSearch
from ramify.search.rebase import Rebase
from ramify.search.scorer import NodeScorer, Value
from ramify.search.tree import TreeView
from ramify.search.tree_of_thoughts import TreeOfThoughts

K = 4
"""Branches of one expansion, where the algorithm does not say itself."""


@dataclass(frozen=True, kw_only=True)
class SearchShape:
    """How large the trees are. Raises InputError for a number that cannot be."""

    width: int  # branches that grow side by side
    depth: int  # steps of an answer
    step_tokens: int
    prompt_tokens: int

    def __post_init__(self) -> None:
        if self.width < K or self.width % K:
            raise InputError(expected_got("width", f"a multiple of {K}", self.width))
        for name in ("depth", "step_tokens", "prompt_tokens"):
            if getattr(self, name) < 1:
                raise InputError(expected_got(name, "at least 1", getattr(self, name)))

    @property
    def longest_path(self) -> int:
        """Tokens of an answer behind its prompt."""
        return self.prompt_tokens + self.depth * self.step_tokens

    @property
    def params(self) -> SamplingParams:
        """Steps of equal length; end tokens stay in the text, which is read again as a prompt."""
        return SamplingParams(
            max_tokens=self.step_tokens, ignore_eos=True, skip_special_tokens=False
        )


def value_of_place(tree: TreeView, node: int) -> Value:
    """A value in [0, 1) drawn from the ranks among siblings on the way to a node."""
    drawn = 0
    path = tree.path(node)
    for above, step in pairwise(path):
        drawn = mix64(drawn ^ mix64(above.children.index(step.id)))
    return Value(score=(drawn >> 11) / (1 << 53))


def _common(shape: SearchShape) -> dict[str, Any]:
    # equal steps of a model of random weights are different thoughts here
    return {
        "params": shape.params,
        "depth": shape.depth,
        "scorer": NodeScorer(value_of_place),
        "state": lambda text: object(),
    }


def _beam(shape: SearchShape) -> Controller:
    ks = [shape.width, K]
    return TreeOfThoughts(k=ks, width=shape.width // K, backtrack=False, **_common(shape))


def _dvts(shape: SearchShape) -> Controller:
    return DiverseVerifierTreeSearch(width=shape.width // K, k=K, **_common(shape))


def _rebase(shape: SearchShape) -> Controller:
    return Rebase(width=shape.width, **_common(shape))


def _mcts(shape: SearchShape) -> Controller:
    side_by_side = shape.width // K
    return MonteCarloTreeSearch(
        k=K,
        parallel=side_by_side,
        simulations=side_by_side * shape.depth,
        **_common(shape),
    )


SEARCHES: dict[str, Callable[[SearchShape], Controller]] = {
    "rebase": _rebase,
    "mcts": _mcts,
    "beam": _beam,
    "dvts": _dvts,
}
"""By name; each grows about width x depth branches. `beam` is a beam of steps."""


def make_search(name: str, shape: SearchShape) -> Controller:
    """A fresh controller. Raises InputError for a search that there is not."""
    if name not in SEARCHES:
        raise InputError(expected_got("algorithms", f"any of {', '.join(SEARCHES)}", repr(name)))
    return SEARCHES[name](shape)
