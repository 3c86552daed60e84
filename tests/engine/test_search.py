"""Searches on a real engine: same seed same tree, warm or cold, and nothing leaks at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.core.errors import RequestAborted
from ramify.core.outputs import SearchResult
from ramify.search import Budget, Controller, make_controller

STEP = SamplingParams(max_tokens=3, ignore_eos=True)
PROMPT = list(range(30, 47))


def by_chance(prompt: str, text: str) -> float:
    """A score that any text has, and always the same one."""
    return sum(text.encode()) % 11 / 10


@dataclass
class Halves:
    """Two questions, and a third about both answers."""

    parts = ("first?", "second?")

    def merge(self, left: str, right: str) -> str:
        return f"both {len(left)} {len(right)}?"


OPTIONS: dict[str, dict[str, Any]] = {
    "tot": {"depth": 3, "k": 3, "width": 2},
    "tot_dfs": {"depth": 3, "k": 2, "threshold": 0.3},
    "dvts": {"depth": 3, "k": 2, "width": 3},
    "rebase": {"depth": 3, "width": 5},
    "mcts": {"depth": 3, "k": 2, "parallel": 2, "rollout_tokens": 5},
    "smc": {"depth": 3, "width": 5},
    "got": {"k": 3, "plan": Halves()},
}
NAMES = [*OPTIONS, "diverse_beam"]


def arguments(name: str) -> dict[str, Any]:
    if name == "diverse_beam":
        params = BeamSearchParams(beam_width=4, max_tokens=6)
        return {"params": params, "num_groups": 2, "eos_token_ids": ()}
    return {"params": STEP, "scorer": by_chance, "budget": Budget(tokens=80), **OPTIONS[name]}


def controller(name: str) -> Controller:
    return make_controller(name, **arguments(name))


def shape(result: SearchResult) -> list[tuple[object, ...]]:
    """A tree without its log-probabilities, whose last bits depend on what is in a batch."""
    return [(n.parent, n.token_ids, n.state) for n in result.tree]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_tree_in_a_pool_with_a_cache_and_within_the_budget(
    name: str, make_llm: Callable[..., LLM], bytes_model: Path
) -> None:
    llm = make_llm(bytes_model)
    first = llm.search(PROMPT, name, seed=5, **arguments(name))
    again = llm.search(PROMPT, name, seed=5, **arguments(name))  # its prompt is cached
    assert shape(first) == shape(again)
    assert [o.token_ids for o in first.outputs] == [o.token_ids for o in again.outputs]
    assert first.outputs
    assert first.usage.generated_tokens <= 80
    assert again.usage.cached_tokens > 0


@pytest.mark.parametrize("name", NAMES)
def test_cancelled_at_any_step_nothing_leaks(
    name: str, make_llm: Callable[..., LLM], bytes_model: Path
) -> None:
    llm = make_llm(bytes_model)
    steps, options = 0, arguments(name)
    if "budget" in options:
        options["budget"] = Budget(tokens=36)
    while True:
        request = llm.engine.submit(make_controller(name, **options), PROMPT, seed=5)
        for _ in range(steps):
            llm.engine.step()
        if request.is_done:
            break
        llm.engine.abort(request)
        llm.engine.settle()
        # steps that ran ahead are written down first, and may have brought the end
        assert request.finish is not None or isinstance(request.error, RequestAborted)
        llm.engine.cache.check_integrity()
        assert llm.engine.cache.available == llm.engine.limits.num_slots
        steps += 1
    assert steps > 3


@pytest.mark.parametrize("name", ["tot", "rebase", "smc", "diverse_beam"])
def test_a_tight_pool_gives_the_same_tree(
    name: str, make_llm: Callable[..., LLM], bytes_model: Path
) -> None:
    """Where room is short branches end in another order; searches with barriers do not notice."""
    roomy, tight = make_llm(bytes_model), make_llm(bytes_model, num_slots=52)
    expected = roomy.search(PROMPT, name, seed=5, **arguments(name))
    found = tight.search(PROMPT, name, seed=5, **arguments(name))
    assert sorted(o.token_ids for o in found.outputs) == sorted(
        o.token_ids for o in expected.outputs
    )


def test_a_scorer_that_raises_ends_its_search_alone(
    make_llm: Callable[..., LLM], bytes_model: Path
) -> None:
    llm = make_llm(bytes_model)

    def broken(prompt: str, text: str) -> float:
        raise RuntimeError("no score today")

    other = llm.engine.submit(controller("rebase"), PROMPT, seed=1)
    with pytest.raises(RuntimeError, match="no score today"):
        llm.search(PROMPT, "dvts", params=STEP, depth=2, scorer=broken)
    while not other.is_done:
        llm.engine.step()
    assert other.error is None
