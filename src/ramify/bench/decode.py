"""How much faster is a decode step that reads the shared KV once?  (`ramify bench decode`)

Fair: one process, one machine, the same weights, prompt and seeds for every method; repeats
interleaved, each step at its median; prefill left out for all; before anything is timed, every
method must have produced the tokens of the first one. The per-branch method reads each path with
one product per branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from ramify import LLM
from ramify.bench.env import environment
from ramify.bench.rows import DecodeRow
from ramify.bench.timer import interleaved, median_of
from ramify.bench.workloads import DecodeWorkload
from ramify.core.errors import InputError, IntegrityError, expected_got
from ramify.profile.shape import random_prompt

Progress = Callable[[str], None]
GROUPED = ("node", "node_chunk", "flatten")


@dataclass(frozen=True, kw_only=True)
class DecodeRun:
    """One run of a workload: decode steps only."""

    tokens: tuple[tuple[int, ...], ...]  # of every node, in the order the nodes were made
    num_rows: int
    attention_s: tuple[float, ...]  # of every step
    step_s: tuple[float, ...]
    kv_bytes_read: int


def bench_decode(
    engines: dict[str, LLM],
    workload: DecodeWorkload,
    *,
    model_name: str,
    repeats: int = 3,
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> list[DecodeRow]:
    """Run a workload with every engine, one row each.

    Args:
        engines: method name to an LLM of that method, all of the same model; the first is the
            baseline of the ratios.
        repeats: timed runs per method, after one run that is checked and not timed.
    Raises:
        InputError: fewer than one engine or repeat, or a workload longer than the context.
        IntegrityError: a method gave other tokens than the baseline.
    """
    methods = list(engines)
    if not methods or repeats < 1:
        raise InputError(expected_got("methods, repeats", "at least one of each", "none"))
    baseline = methods[0]
    prompt = _prompt(engines[baseline], workload, seed)
    checked: dict[str, DecodeRun] = {}
    for method in methods:
        progress(f"checking the tokens of {method}")
        checked[method] = decode_once(engines[method], workload, prompt)
        if checked[method].tokens != checked[baseline].tokens:
            raise IntegrityError(f"{method} gave other tokens than {baseline} on {workload.name}")
    timed: dict[str, list[DecodeRun]] = {method: [] for method in methods}
    for method in interleaved(methods, repeats):
        progress(f"timing {method}, run {len(timed[method]) + 1} of {repeats}")
        timed[method].append(decode_once(engines[method], workload, prompt))
    stamp = environment()
    base_attention_s = _sum_of_medians([run.attention_s for run in timed[baseline]])
    base_bytes = checked[baseline].kv_bytes_read
    rows = []
    for method, runs in timed.items():
        attention_s = _sum_of_medians([run.attention_s for run in runs])
        total_s = _sum_of_medians([run.step_s for run in runs])
        num_steps = len(runs[0].step_s)
        row = DecodeRow(
            question="decode",
            workload=workload.name,
            model=model_name,
            method=method,
            backend=engines[method].engine.executor.attention.backend,
            prompt_tokens=workload.prompt_tokens,
            num_steps=num_steps,
            generated_tokens=runs[0].num_rows,
            repeats=repeats,
            attention_ms=attention_s * 1e3,
            total_ms=total_s * 1e3,
            step_ms=total_s * 1e3 / num_steps,
            tok_per_s=runs[0].num_rows / total_s,
            kv_bytes_read=runs[0].kv_bytes_read,
            kv_bytes_expected=expected_kv_bytes(engines[method], workload, method),
            baseline=baseline,
            attention_speedup=base_attention_s / attention_s,
            kv_saving=base_bytes / runs[0].kv_bytes_read,
            are_tokens_equal=True,  # the gate above let this method through
            environment=stamp,
        )
        rows.append(row)
    return rows


def decode_once(llm: LLM, workload: DecodeWorkload, prompt: Sequence[int]) -> DecodeRun:
    """Grow the tree once and measure every step after the first sampled tokens."""
    engine, executor = llm.engine, llm.engine.executor
    request = engine.submit(workload.controller(), prompt, seed=0)
    while not request.tree.generated_tokens and not request.is_done:
        engine.step()
    kv_bytes, num_rows = executor.kv_bytes_read, 0
    attention_s, step_s = [], []
    while not request.is_done:
        attention_before, start = executor.attention_s, perf_counter()
        engine.step()
        step_s.append(perf_counter() - start)
        attention_s.append(executor.attention_s - attention_before)
        assert engine.last_batch is not None, "a step of a live request has rows"
        num_rows += engine.last_batch.forest.num_rows
    if request.error is not None:
        raise request.error
    return DecodeRun(
        tokens=tuple(tuple(node.token_ids) for node in request.tree),
        num_rows=num_rows,
        attention_s=tuple(attention_s),
        step_s=tuple(step_s),
        kv_bytes_read=executor.kv_bytes_read - kv_bytes,
    )


def _sum_of_medians(runs: Sequence[Sequence[float]]) -> float:
    """Each step's median over the runs, summed: a step that was held up once does not count."""
    return sum(median_of(samples) for samples in zip(*runs, strict=True))


def expected_kv_bytes(llm: LLM, workload: DecodeWorkload, method: str) -> int:
    """KV bytes of all decode steps, from the workload's shape and the model's dimensions."""
    config = llm.engine.executor.model.config
    itemsize = llm.engine.executor.attention.heads.itemsize
    token_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
    is_grouped = method in GROUPED
    steps = range(1, workload.num_steps + 1)
    return token_bytes * sum(workload.kv_tokens_at(s, is_grouped=is_grouped) for s in steps)


def _prompt(llm: LLM, workload: DecodeWorkload, seed: int) -> list[int]:
    limit = llm.engine.limits.max_context
    if workload.longest_path > limit:
        got = f"{workload.longest_path} tokens ({workload.name})"
        raise InputError(expected_got("workload", f"paths of at most {limit} tokens", got))
    return random_prompt(workload.prompt_tokens, llm.engine.live.codec.vocab_size, seed)
