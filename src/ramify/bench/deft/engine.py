"""DeFT end to end: its workloads through the whole engine, per branch against grouped.

One engine after another with the same weights, prompts and seeds. Everything a user waits for is
inside the times: prefill, growing and cutting trees, planning, the model, drawing tokens. Warming
up (kernels, CUDA graphs, a shorter run of the same workload) is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

import torch

from ramify import LLM
from ramify.bench.deft.engine_rows import DeftEngineRow
from ramify.bench.deft.growths import EngineWorkload, Growth
from ramify.bench.env import environment
from ramify.bench.generation import release
from ramify.bench.speculation.decoding import decode
from ramify.bench.speculation.replay_drafter import replay
from ramify.core.errors import InputError, expected_got
from ramify.engine.device_clock import DeviceClock
from ramify.engine.executor import Executor
from ramify.profile.shape import random_prompt

Tokens = list[tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class EngineBench:
    """What is measured. The first method is the one that the others are compared with.

    `settings` are those of an LLM with a concrete device. Raises InputError for several processes.
    """

    settings: dict[str, Any]
    model_name: str
    methods: Sequence[str]
    workloads: Sequence[EngineWorkload]
    seed: int = 0
    commit: str | None = None  # of the sources, where they are a copy
    progress: Callable[[str], None] = lambda text: None
    done: Callable[[DeftEngineRow], None] = lambda row: None  # gets every row at once

    def __post_init__(self) -> None:
        size = self.settings.get("tensor_parallel_size", 1)
        if size != 1:
            raise InputError(expected_got("tensor_parallel_size", "1 in this benchmark", size))
        if not self.methods or not self.workloads:
            raise InputError(expected_got("methods, workloads", "at least one of each", "none"))


@dataclass(frozen=True, kw_only=True)
class GrowthTimes:
    """One or more trees, each grown once; sums."""

    prefill_s: float  # until all first tokens are there
    decode_s: float  # what comes after
    device_s: float  # of it, forward passes
    plan_s: float  # of it, the host planning attention; some of it while the device works
    num_steps: int
    num_graph_steps: int
    num_tokens: int  # generated

    def __add__(self, other: GrowthTimes) -> GrowthTimes:
        return GrowthTimes(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


def bench_engines(bench: EngineBench) -> list[DeftEngineRow]:
    """Grow all workloads with all methods, a row for each.

    Raises:
        ConfigError: the model cannot be loaded. InputError: a workload longer than the context.
        OutOfSlots: the KV pool is too small for a workload.
    """
    rows: list[DeftEngineRow] = []
    baseline: dict[str, Tokens] = {}
    for method in bench.methods:
        release(torch.device(bench.settings["device"]))
        with LLM(**{**bench.settings, "method": method}) as llm:
            bench.progress(f"{method}: {llm.startup}")
            for workload in bench.workloads:
                times, tokens = _run(llm, workload, bench.seed)
                apart = count_apart(tokens, baseline.setdefault(workload.name, tokens))
                row = _row(bench, llm, workload, times, (len(tokens), apart))
                bench.progress(f"{workload.name} by {method}: {row.decode_s:.2f} s of decoding")
                bench.done(row)
                rows.append(row)
        del llm
    return rows


def grow(llm: LLM, growth: Growth, *, seed: int, clock: DeviceClock) -> tuple[GrowthTimes, Tokens]:
    """Grow one tree from its prompt to its end; its times, and the tokens of every node.

    Raises what the engine raises of the request.
    """
    engine, executor, codec = llm.engine, executor_of(llm), llm.engine.live.codec
    prompt = random_prompt(growth.prompt_tokens, codec.vocab_size, seed)
    _speculate(llm, growth, prompt, seed)
    begin = perf_counter()
    request = engine.submit(growth.controller(seed), prompt, seed=seed)
    while len(request.tree) == 1 and not request.is_done:
        engine.step()
    device_s = clock.total_s()
    prefilled = perf_counter()
    steps, plan_s, replays = request.usage.steps, executor.plan_s, _replays(executor)
    while not request.is_done:
        engine.step()
    device_s = clock.total_s() - device_s  # waits, so the device is done too
    end = perf_counter()
    if request.error is not None:
        raise request.error
    times = GrowthTimes(
        prefill_s=prefilled - begin,
        decode_s=end - prefilled,
        device_s=device_s,
        plan_s=executor.plan_s - plan_s,
        num_steps=request.usage.steps - steps,
        num_graph_steps=_replays(executor) - replays,
        num_tokens=request.tree.generated_tokens,
    )
    return times, [tuple(node.token_ids) for node in request.tree]


def _speculate(llm: LLM, growth: Growth, prompt: list[int], seed: int) -> None:
    """Have the recorded drafts verified from now on, if the growth has any.

    They have to know the tokens to come, so those are decoded plainly first; nothing here is timed.
    """
    llm.engine.stop_speculating()
    if growth.drafts is None:
        return
    # a draft at the end reaches beyond it
    new_tokens = growth.longest_path - growth.prompt_tokens
    plain = decode(llm, prompt, new_tokens=new_tokens, seed=seed)
    replay(llm, growth.drafts.parent, growth.drafts.accepted[0], plain.path)


def count_apart(tokens: Tokens, baseline: Tokens) -> int:
    """Nodes whose tokens are not those of the baseline."""
    return sum(own != other for own, other in zip(tokens, baseline, strict=True))


def executor_of(llm: LLM) -> Executor:
    """The executor of an LLM that runs in this process alone."""
    executor = llm.engine.executor
    assert isinstance(executor, Executor), "the benchmark asked for one process"
    return executor


def _run(llm: LLM, workload: EngineWorkload, seed: int) -> tuple[GrowthTimes, Tokens]:
    """Warm up, then grow every tree of a workload once."""
    limit = llm.engine.limits.max_context
    if workload.longest_path > limit:
        got = f"{workload.longest_path} tokens ({workload.name})"
        raise InputError(expected_got("workload", f"paths of at most {limit} tokens", got))
    executor = executor_of(llm)
    clock = executor.open_clock()
    for growth in workload.warm_ups:
        grow(llm, growth, seed=seed, clock=clock)
    if executor.loop is not None:
        executor.loop.capture(max(tree.most_rows for tree in workload.trees))
    total, tokens = grow(llm, workload.trees[0], seed=seed, clock=clock)
    for growth in workload.trees[1:]:
        times, more = grow(llm, growth, seed=seed, clock=clock)
        total, tokens = total + times, tokens + more
    return total, tokens


def _replays(executor: Executor) -> int:
    return 0 if executor.loop is None else executor.loop.num_replays


def _row(
    bench: EngineBench,
    llm: LLM,
    workload: EngineWorkload,
    times: GrowthTimes,
    nodes: tuple[int, int],
) -> DeftEngineRow:
    return DeftEngineRow(
        question="deft_engine",
        workload=workload.name,
        model=bench.model_name,
        method=llm.config.method,
        backend=executor_of(llm).attention.backend,
        device=llm.config.device,
        dtype=llm.config.dtype,
        baseline=bench.methods[0],
        num_trees=len(workload.trees),
        longest_path=workload.longest_path,
        num_nodes=nodes[0],
        num_nodes_apart=nodes[1],
        environment=environment(bench.commit),
        **{f.name: getattr(times, f.name) for f in fields(times)},
    )
