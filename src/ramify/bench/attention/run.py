"""Measure cases: check every provider, then time the correct ones in interleaved rounds."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ramify.bench.attention.ceilings import Ceilings, floor_of, measure_ceilings
from ramify.bench.attention.check import (
    FACTOR,
    Oracle,
    error_ratio,
    make_oracle,
    poison_free_memory,
)
from ramify.bench.attention.problem import Problem, make_problem
from ramify.bench.attention.providers import (
    OURS,
    PEERS,
    PROVIDERS,
    Absent,
    Provider,
    open_provider,
)
from ramify.bench.attention.providers.base import nothing
from ramify.bench.attention.results import PlanTimes, Result, make_row
from ramify.bench.attention.rows import AttentionRow
from ramify.bench.attention.shapes import Case
from ramify.bench.attention.timers import Timer, timed_plan, timer_for
from ramify.bench.env import Environment, environment
from ramify.bench.timer import median_of
from ramify.core.errors import InputError, expected_got

Progress = Callable[[str], None]
REHEARSALS = 3  # replays of each provider alone, before all are timed
CASE_US = 1e6  # timed replays of a case may take so long; slow cases get fewer rounds,
FEWEST_ROUNDS = 7  # but never fewer than this
FLUSH_US = 200.0  # about what emptying the L2 takes before each replay
GROWTH_STEPS = 3  # plans of a growing tree behind `plan_step_us`; below the room of a leaf


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure."""

    device: torch.device
    dtype: torch.dtype
    repeats: int = 30
    seed: int = 0
    commit: str | None = None  # where the sources are a copy


def bench_attention(
    cases: Sequence[Case],
    providers: Sequence[str],
    settings: Settings,
    progress: Progress = lambda text: None,
    done: Callable[[list[AttentionRow]], None] = lambda rows: None,
) -> list[AttentionRow]:
    """Every provider on every case, a row each.

    Args:
        providers: names from `PROVIDERS`.
        done: gets the rows of each case as soon as they are measured.
    Raises:
        InputError: an unknown provider, or no repeats.
    """
    for name in providers:
        if name not in PROVIDERS:
            known = ", ".join((*OURS, *PEERS))
            raise InputError(expected_got("provider", f"one of {known}", repr(name)))
    if settings.repeats < 1:
        raise InputError(expected_got("repeats", "at least 1", settings.repeats))
    timer = timer_for(settings.device)
    ceilings = measure_ceilings(timer, settings.device, settings.dtype)
    stamp = environment(settings.commit)
    rows: list[AttentionRow] = []
    for case in cases:
        progress(f"{case.suite} {case.heads.name} {case.tree.name}")
        rows += (fresh := _bench_case(case, providers, settings, timer, ceilings, stamp))
        done(fresh)
        if timer.is_lost():
            progress("the device was lost to a fault: no more cases in this process")
            break
    return rows


def _bench_case(
    case: Case,
    providers: Sequence[str],
    settings: Settings,
    timer: Timer,
    ceilings: Ceilings,
    stamp: Environment,
) -> list[AttentionRow]:
    problem = make_problem(case, device=settings.device, dtype=settings.dtype, seed=settings.seed)
    oracle = make_oracle(problem)
    # index lists of a grown tree are made once for all providers
    later = [problem.grown(tokens) for tokens in range(GROWTH_STEPS + 1)]
    results = _prepare_all(providers, problem, later, oracle, timer)
    runs = {name: result.run for name, result in results.items() if result.run is not None}
    samples = timer.measure(runs, _rounds(results.values(), settings)) if runs else {}
    floor = floor_of(problem.forest, problem.heads, ceilings)
    rows = [
        make_row(problem, name, result, samples.get(name), floor, ceilings, timer, stamp)
        for name, result in results.items()
    ]
    del results, runs  # graphs hold memory of the pool they were captured in
    gc.collect()
    if not timer.is_lost():
        timer.release()
    return rows


def _rounds(results: Iterable[Result], settings: Settings) -> int:
    """As many as asked for, or as fit into `CASE_US`."""
    round_us = sum(r.rehearsal_us + FLUSH_US for r in results if r.run is not None)
    return min(settings.repeats, max(FEWEST_ROUNDS, int(CASE_US / round_us)))


def _prepare_all(
    providers: Sequence[str],
    problem: Problem,
    later: Sequence[Problem],
    oracle: Oracle,
    timer: Timer,
) -> dict[str, Result]:
    """Every provider in turn. If one takes the device down, it is the one that is blamed."""
    results: dict[str, Result] = {}
    for name in providers:
        results[name] = _prepare(name, problem, later, oracle, timer)
        if timer.is_lost():
            lost = Result(status="skipped", reason=f"the device was lost to a fault of {name}")
            others = {other: lost for other in providers if other != name}
            return {other: others.get(other, results[name]) for other in providers}
    return results


def _prepare(
    name: str, problem: Problem, later: Sequence[Problem], oracle: Oracle, timer: Timer
) -> Result:
    """Plan and run once, compare, time the plans, make the run ready to be timed."""
    try:
        return _checked(name, problem, later, oracle, timer)
    except Absent as reason:
        return Result(status="skipped", reason=str(reason))
    except Exception as error:  # one broken provider must not end the comparison
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        return Result(status="failed", reason=f"{text} ({where.name})")


def _checked(
    name: str, problem: Problem, later: Sequence[Problem], oracle: Oracle, timer: Timer
) -> Result:
    warm = open_provider(name).prepare(problem)
    warm.plan()
    poison_free_memory(problem.q)
    error = error_ratio(warm.run(), oracle)
    if error > FACTOR:
        return _wrong(error)
    has_plan = warm.plan is not nothing
    del warm
    provider = open_provider(name)
    plan = _plan_times(provider, later, timer) if has_plan else PlanTimes()
    prepared = provider.prepare(problem)
    prepared.plan()
    run, out = timer.ready(prepared.run)
    if timer.kind == "graph":
        # what is timed is what is checked: the graph itself, on poisoned output
        out.fill_(torch.nan)
        run()
        error = max(error, error_ratio(out, oracle))
    if error > FACTOR:
        return _wrong(error)
    # with the L2 flushed in between, as later among the others: a fault must show here
    rehearsals = timer.measure({name: run}, REHEARSALS)[name]
    return Result(
        status="timed",
        run=run,
        rehearsal_us=median_of(rehearsals),
        facts=prepared.facts(),
        error=error,
        plan=plan,
    )


def _plan_times(provider: Provider, problems: Sequence[Problem], timer: Timer) -> PlanTimes:
    """The first plan of a new provider, then the median while leaves grow token by token."""
    times = [timed_plan(provider.prepare(problem).plan, timer) for problem in problems]
    (_, cold_us), *steps = times
    host_us, step_us = np.median(np.array(steps), axis=0).tolist()
    return PlanTimes(cold_us=cold_us, step_us=step_us, host_us=host_us)


def _wrong(error: float) -> Result:
    reason = f"wrong: {error:.3g} times the error of plain torch, at most {FACTOR:g} is let through"
    return Result(status="failed", reason=reason, error=error)
