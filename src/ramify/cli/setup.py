"""From flags to the arguments of `LLM.search`: defaults that fit the algorithm and the task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ramify.cli.flags import unescape
from ramify.cli.options import RunOptions
from ramify.cli.problems import Job
from ramify.core.errors import InputError, expected_got
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.search.budget import Budget
from ramify.search.scorer import REWARD, with_reward
from ramify.zoo.steps import (
    SIZES,
    STEPS,
    SortPlan,
    Steps,
    check_part,
    checker_scorer,
    search_options,
)
from ramify.zoo.tasks import get_task

T = TypeVar("T")

STEP_SEARCHES = ("tot", *SIZES)
ALGORITHMS = (
    *STEP_SEARCHES,
    "best_of_n",
    "self_consistency",
    "beam",
    "diverse_beam",
    "got",
    "sample",
)

# a tree of thoughts over a prompt that no task describes: a line a step, ranked by log-probability
PLAIN_STEPS = Steps(max_tokens=32, depth=4, k=4, width=3, temperature=0.8)
PLAIN_MAX_TOKENS = 64
SAMPLES = 8
SIMULATIONS = 16
GRAPH_K = 4


@dataclass(frozen=True, kw_only=True)
class Search:
    """One call of `LLM.search`; without a prompt it begins where texts begin."""

    prompt: str | None
    algorithm: str
    arguments: dict[str, Any]


def search_of(job: Job, options: RunOptions) -> Search:
    """The search a job gets. Raises InputError for a flag that is out of range or unknown."""
    algorithm = options.algorithm or ("tot" if job.problem is not None else "best_of_n")
    if algorithm not in ALGORITHMS:
        raise InputError(expected_got("algorithm", f"one of {', '.join(ALGORITHMS)}", algorithm))
    make = _thoughts if algorithm in STEP_SEARCHES else _samples
    own = {"beam": _beam, "diverse_beam": _diverse_beam, "got": _graph}
    arguments = own.get(algorithm, make)(job, options, algorithm)
    if options.engine.reward_model is not None:
        arguments = _rewarded(arguments, algorithm)
    # a graph's prompts are those of its parts, with nothing before them
    prompt = None if algorithm == "got" else job.prompt
    return Search(algorithm=algorithm, prompt=prompt, arguments=arguments)


def _thoughts(job: Job, options: RunOptions, algorithm: str) -> dict[str, Any]:
    """A search over steps; every flag that the algorithm knows goes before its default."""
    steps = PLAIN_STEPS if job.problem is None else STEPS[job.problem.task]
    if options.no_judge or options.engine.reward_model is not None:
        steps = replace(steps, judge=None)
    arguments = search_options(algorithm, steps, job.problem, seed=options.seed)
    k = options.k if algorithm == "tot" or options.k is None else options.k[0]
    for name, said in (("k", k), ("width", options.width), ("depth", options.depth)):
        if name in arguments and said is not None:
            arguments[name] = said
    arguments["params"] = _override(arguments["params"], options)
    budget = _budget(_said(options.budget_tokens, steps.budget_tokens))
    if algorithm == "mcts" and budget is None:
        arguments["simulations"] = SIMULATIONS
    return {**arguments, "budget": budget}


def _rewarded(arguments: dict[str, Any], algorithm: str) -> dict[str, Any]:
    """The reward model has the say on what a checker, if there is one, leaves open."""
    if algorithm not in (*STEP_SEARCHES, "best_of_n"):
        wanted = f"one of {', '.join(STEP_SEARCHES)}, best_of_n with a reward_model"
        raise InputError(expected_got("algorithm", wanted, algorithm))
    checker = arguments.get("scorer")
    scorer = REWARD if checker is None else with_reward(checker)
    arguments = {name: value for name, value in arguments.items() if name != "select"}
    return {**arguments, "scorer": scorer}


def _beam(job: Job, options: RunOptions, algorithm: str) -> dict[str, Any]:
    limit = _said(options.max_tokens, _max_tokens(job))
    return {"params": BeamSearchParams(beam_width=_said(options.width, 4), max_tokens=limit)}


def _diverse_beam(job: Job, options: RunOptions, algorithm: str) -> dict[str, Any]:
    """Every beam a group of its own, which is as diverse as it gets."""
    arguments = _beam(job, options, algorithm)
    return {**arguments, "num_groups": arguments["params"].beam_width}


def _graph(job: Job, options: RunOptions, algorithm: str) -> dict[str, Any]:
    """Sorting by parts: the one task whose parts the bundled model can solve and merge."""
    if job.problem is None or job.problem.task != "sort":
        got = "a prompt" if job.problem is None else repr(job.problem.task)
        raise InputError(expected_got("task of algorithm got", "sort", got))
    base = SamplingParams(max_tokens=_max_tokens(job), seed=options.seed)
    return {
        "params": _override(base, options),
        "plan": SortPlan(digits=job.problem.prompt.split()[1:]),
        "scorer": check_part,
        "k": options.k[0] if options.k else GRAPH_K,
        "budget": _budget(options.budget_tokens),
    }


def _samples(job: Job, options: RunOptions, algorithm: str) -> dict[str, Any]:
    """Best-of-n, its vote, or plain samples."""
    num_samples = options.k[0] if options.k else SAMPLES
    base = SamplingParams(n=num_samples, max_tokens=_max_tokens(job), seed=options.seed)
    arguments: dict[str, Any] = {"params": _override(base, options)}
    if algorithm == "sample":
        return arguments
    arguments["budget"] = _budget(options.budget_tokens)
    if algorithm == "self_consistency":
        return {**arguments, "answer": str.strip}
    if job.problem is None:
        return {**arguments, "select": "logprob"}
    return {**arguments, "scorer": checker_scorer(job.problem)}


def _override(params: SamplingParams, options: RunOptions) -> SamplingParams:
    """What was said on the command line goes before the defaults."""
    said: dict[str, Any] = {}
    if options.temperature is not None:
        said["temperature"] = options.temperature
    if options.max_tokens is not None:
        said["max_tokens"] = options.max_tokens
    if options.stop is not None:
        said["stop"] = tuple(unescape(text) for text in options.stop)
    return replace(params, **said)


def _said(value: int | None, default: T) -> int | T:
    """The flag's value; 0 is a value too, and an error that its owner reports."""
    return default if value is None else value


def _budget(tokens: int | None) -> Budget | None:
    return None if tokens is None else Budget(tokens=tokens)


def _max_tokens(job: Job) -> int:
    return PLAIN_MAX_TOKENS if job.problem is None else get_task(job.problem.task).max_tokens
