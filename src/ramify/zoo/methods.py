"""What `ramify.zoo.evaluate` compares: a method's name, and a controller for each problem.

Best-of-n and the searches over steps have the family's checker and the same budget of generated
tokens, and stop once the checker says solved. Greedy decoding and the beam search over tokens have
neither: they give one answer. A step beam is the breadth-first tree of thoughts, once through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ramify.core.errors import InputError, expected_got
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.search import BeamSearch, BestOfN, Budget, Controller, Sample, make_controller
from ramify.zoo.steps import (
    SIZES,
    STEP_BEAM,
    STEPS,
    Steps,
    checker_scorer,
    long_list,
    search_options,
    sizes_of,
)
from ramify.zoo.tasks import Problem
from ramify.zoo.tasks.lists import MAX_DIGITS

BEAM_WIDTH = 4
NO_JUDGE = "_no_judge"
METHODS = ("greedy", "best_of_n", "beam", "step_beam", "tot", *SIZES)


class Method(NamedTuple):
    """How a problem is solved, and the settings in words."""

    make: Callable[[Problem], Controller]
    words: str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all methods are told, and what replaces a search's own sizes."""

    task: str
    size: int | None = None  # of a list
    budget_tokens: int  # generated tokens per problem
    answer_tokens: int  # the longest answer
    eos_token_ids: tuple[int, ...]
    sample_temperature: float | None = None  # of best-of-n
    temperature: float | None = None  # of steps
    k: tuple[int, ...] | None = None
    width: int | None = None

    @property
    def steps(self) -> Steps:
        """The family's steps, or those of lists that training did not have."""
        size = self.size or 0
        return long_list(size) if size > MAX_DIGITS else STEPS[self.task]


def make_method(name: str, setting: Setting) -> Method:
    """A method by name; `NAME_no_judge` is a search without its judge. Raises InputError."""
    plain = {"greedy": _greedy, "best_of_n": _best_of_n, "beam": _beam}
    if name.removesuffix(NO_JUDGE) not in METHODS:
        raise InputError(expected_got("method", f"one of {', '.join(METHODS)}", repr(name)))
    return plain[name](setting) if name in plain else _search(name, setting)


def _greedy(setting: Setting) -> Method:
    params = SamplingParams(temperature=0.0, max_tokens=setting.answer_tokens)
    return Method(lambda problem: Sample(params), "temperature 0")


def _best_of_n(setting: Setting) -> Method:
    """Rounds of one sample: stops at the first solved one, and loses no token of the budget."""
    temperature = setting.sample_temperature
    if temperature is None:
        temperature = setting.steps.sample_temperature
    one = SamplingParams(temperature=temperature, max_tokens=setting.answer_tokens)
    budget = Budget(tokens=setting.budget_tokens)
    return Method(
        lambda problem: BestOfN(one, checker_scorer(problem), budget=budget),
        f"temperature {temperature:g}, budget {setting.budget_tokens}",
    )


def _beam(setting: Setting) -> Method:
    params = BeamSearchParams(beam_width=BEAM_WIDTH, max_tokens=setting.answer_tokens)
    return Method(lambda problem: BeamSearch(params, setting.eos_token_ids), f"width {BEAM_WIDTH}")


def _search(name: str, setting: Setting) -> Method:
    algorithm = name.removesuffix(NO_JUDGE)
    steps = setting.steps
    heat = steps.temperature if setting.temperature is None else setting.temperature
    judge = steps.judge if algorithm == name else None
    steps = replace(steps, temperature=heat, judge=judge)
    registered, sizes, more = algorithm, _sizes(algorithm, steps, setting), {}
    if algorithm == "step_beam":
        registered, more = "tot", {"backtrack": False}
    budget = Budget(tokens=setting.budget_tokens)

    def make(problem: Problem) -> Controller:
        arguments = search_options(registered, steps, problem) | sizes | more
        return make_controller(registered, budget=budget, **arguments)

    words = ", ".join(f"{size} {_listed(value)}" for size, value in sizes.items())
    return Method(make, f"{words}, temperature {heat:g}, budget {setting.budget_tokens}")


def _sizes(algorithm: str, steps: Steps, setting: Setting) -> dict[str, Any]:
    """How wide a search is, unless the setting says otherwise."""
    own = STEP_BEAM if algorithm == "step_beam" else sizes_of(algorithm, steps)
    is_by_level = algorithm in ("tot", "step_beam")
    k = setting.k if is_by_level or not setting.k else setting.k[0]
    said: dict[str, Any] = {"k": k, "width": setting.width}
    return {name: said.get(name) or size for name, size in own.items()}


def _listed(size: float | Sequence[int]) -> str:
    return f"{size:g}" if isinstance(size, (int, float)) else ",".join(map(str, size))
