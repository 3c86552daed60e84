"""Where does the time of a decode step go, on the device and on the host?  (`ramify profile step`)

A shape is run until all its branches decode. Then come steps as users have them, timed by the
host's clock, and then steps under the profiler, which slows the host down: from those comes only
what the device did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from ramify import LLM
from ramify.core.errors import ConfigError, InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.engine.request import Request
from ramify.profile.groups import ORDER, groups_of_step
from ramify.profile.shape import DecodeShape
from ramify.profile.timeline import own_times, pauses
from ramify.profile.trace import WARM_UPS, Span, spans_by_step, trace_steps
from ramify.search.sample import Sample

SETTLE_STEPS = 8
"""Steps before anything is timed: kernels are compiled, graphs captured, two steps in flight."""

MORE_STEPS = 2
"""Traced beside those that count: the first and the last of a trace are not whole."""


@dataclass(frozen=True, kw_only=True)
class GroupTime:
    """One part of a step."""

    group: str
    us: float  # per step, moments that two kernels share counted for the earlier
    share: float  # of the device's time from step to step
    launches: float  # per step: kernels and copies, whether launched one by one or by a graph


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """Steady decode steps of one shape. On a CPU the "device" is the CPU, its kernels operators."""

    shape: str
    num_timed: int
    num_traced: int
    step_us: float  # wall clock per step, not traced
    host_us: float | None  # of it, the host at work instead of waiting; None on a CPU
    traced_step_us: float  # from the first kernel of a step to that of the next, under the profiler
    launches: float  # per step
    idle_share: float  # of the traced steps, in which the device ran nothing
    pause_share: float  # likewise, pauses that are the device's own, see `timeline.PAUSE_US`
    groups: tuple[GroupTime, ...]


def profile_step(
    llm: LLM, shape: DecodeShape, *, path: Path, num_timed: int, num_traced: int, seed: int = 0
) -> StepProfile:
    """Profile steady decode steps of a shape and write their trace.

    Args:
        path: of the trace, .json or .json.gz.
        num_timed, num_traced: steps; a longer run includes what happens every few dozen steps.
    Raises:
        InputError: no step to time or trace, or more than the context holds.
        OutOfSlots: the KV pool is too small for the shape.
        ConfigError: the profiler saw nothing of the device.
    """
    num_kept = num_traced + MORE_STEPS
    num_steps = SETTLE_STEPS + num_timed + WARM_UPS + num_kept
    _check(llm, shape, num_timed, num_traced, num_steps)
    requests = _start(llm, shape, seed)
    engine, on_gpu = llm.engine, llm.config.device.startswith("cuda")
    try:
        for _ in range(SETTLE_STEPS):
            engine.step()
        timed = _timed(llm, requests, num_timed)
        trace_steps(engine.step, num_kept, path, on_gpu=on_gpu)
        _raise_failed(requests)
    finally:
        for request in requests:
            engine.abort(request)
        engine.settle()
    steps = spans_by_step(path, on_gpu=on_gpu)
    if not (on_gpu and llm.config.run_ahead):
        timed["host_us"] = None
    return StepProfile(
        shape=str(shape),
        **timed,
        **summarize(steps, llm.engine.executor.model.config.num_layers),
    )


def summarize(steps: Sequence[Sequence[Span]], num_layers: int) -> dict[str, Any]:
    """The fields of a StepProfile that come from a trace.

    A step lasts from its first span to that of the next. The first traced step is left out, as the
    device was idle before it and a profiler may lose its first records, and the last has no end.
    Raises ConfigError where nothing remains.
    """
    if len(steps) < 3:
        wanted = "a trace of at least 3 steps that set something off"
        raise ConfigError(expected_got("profiler", wanted, len(steps)))
    begin_us, end_us = steps[1][0].begin_us, steps[-1][0].begin_us
    counted = steps[1:-1]
    spans = [span for step in counted for span in step]
    groups = [
        group
        for step in counted
        for group in groups_of_step([span.name for span in step], num_layers)
    ]
    count, window_us = len(counted), end_us - begin_us
    used_us: dict[str, float] = defaultdict(float)
    for group, own_us in zip(groups, own_times(spans, end_us), strict=True):
        used_us[group] += own_us
    ends = [*spans, steps[-1][0]]  # a graph launches ahead, so that only lengths tell pauses apart
    pauses_us, _ = pauses(ends, [float("-inf")] * len(ends), begin_us)
    return {
        "num_traced": count,
        "traced_step_us": window_us / count,
        "launches": len(spans) / count,
        "idle_share": 1 - sum(used_us.values()) / window_us,
        "pause_share": pauses_us / window_us,
        "groups": tuple(
            GroupTime(
                group=group,
                us=used_us[group] / count,
                share=used_us[group] / window_us,
                launches=groups.count(group) / count,
            )
            for group in ORDER
            if group in used_us
        ),
    }


def _check(llm: LLM, shape: DecodeShape, num_timed: int, num_traced: int, num_steps: int) -> None:
    if num_timed < 1 or num_traced < 1:
        got = f"{num_timed} to time, {num_traced} to trace"
        raise InputError(expected_got("steps", "at least 1 of each", got))
    limit, longest = llm.engine.limits.max_context, shape.prompt_tokens + 1 + num_steps
    if longest > limit:
        got = f"{longest} tokens ({shape} and {num_steps} steps)"
        raise InputError(expected_got("shape", f"paths of at most {limit} tokens", got))


def _start(llm: LLM, shape: DecodeShape, seed: int) -> list[Request]:
    """Requests whose branches have all begun to decode."""
    engine = llm.engine
    params = SamplingParams(
        n=shape.branches,
        max_tokens=engine.limits.max_context,  # they are aborted long before
        ignore_eos=True,
        seed=seed,
    )
    requests = [
        engine.submit(Sample(params), prompt, seed=seed)
        for prompt in shape.prompts(engine.live.codec.vocab_size, seed)
    ]
    while any(request.tree.generated_tokens < shape.branches for request in requests):
        engine.step()
        _raise_failed(requests)
    return requests


def _raise_failed(requests: Sequence[Request]) -> None:
    for request in requests:
        if request.error is not None:
            raise request.error


def _timed(llm: LLM, requests: Sequence[Request], num_calls: int) -> dict[str, Any]:
    """Steps by the clock: how many, microseconds each, and of them those without a wait.

    Some calls launch no step, and tokens are written down late. So steps are counted by tokens, of
    which none is under way at either end.
    """
    engine, loop = llm.engine, llm.engine.executor.loop
    engine.settle()
    waited_s, tokens = 0.0 if loop is None else loop.wait_s, _tokens(requests)
    begin = perf_counter()
    for _ in range(num_calls):
        engine.step()
    engine.settle()
    wall_s = perf_counter() - begin
    wait_s = 0.0 if loop is None else loop.wait_s - waited_s
    _raise_failed(requests)
    num_steps = (_tokens(requests) - tokens) // sum(len(request.tasks) for request in requests)
    return {
        "num_timed": num_steps,
        "step_us": wall_s / num_steps * 1e6,
        "host_us": (wall_s - wait_s) / num_steps * 1e6,
    }


def _tokens(requests: Sequence[Request]) -> int:
    return sum(request.tree.generated_tokens for request in requests)
