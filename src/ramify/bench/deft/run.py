"""Count every step, time some: rows of DeFT's workloads.

Times come from `bench_attention`, so every provider is checked at every measured step before it is
timed; sample.py says which steps these are, and how many each of them stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ramify.attention import METHODS
from ramify.bench.attention.rows import AttentionRow
from ramify.bench.attention.run import Settings, bench_attention
from ramify.bench.attention.shapes import Case, Heads
from ramify.bench.deft.counts import LAYERS, LLAMA, Counts, count_workload, paper_bytes
from ramify.bench.deft.rows import DeftRow
from ramify.bench.deft.sample import sampled_steps, step_weights
from ramify.bench.deft.workloads import Workload
from ramify.bench.env import Environment, environment

OURS = "ramify:"
HEADS = Heads(
    num_q_heads=LLAMA.num_q_heads, num_kv_heads=LLAMA.num_kv_heads, head_dim=LLAMA.head_dim
)

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Times:
    """One provider over one workload."""

    attention_ms: float | None
    num_points: int
    reason: str | None


def count_providers(
    workload: Workload, providers: Sequence[str], progress: Progress = lambda text: None
) -> dict[str, Counts]:
    """Counts by provider, of those that are a method of ours."""
    methods = [name.removeprefix(OURS) for name in providers]
    counts = count_workload(workload, [m for m in methods if m in METHODS], progress=progress)
    return {OURS + method: found for method, found in counts.items()}


def time_workload(
    workload: Workload,
    providers: Sequence[str],
    points: int,
    settings: Settings,
    progress: Progress = lambda text: None,
) -> tuple[dict[str, Times], list[AttentionRow]]:
    """Times by provider, and the rows of the single steps."""
    steps = sampled_steps(workload, points)
    cases = [_case(workload, step) for step in steps]
    rows = bench_attention(cases, providers, settings, progress)
    weights = step_weights(workload, steps)
    return {name: _times(rows, name, weights) for name in providers}, rows


def _case(workload: Workload, step: int) -> Case:
    tree = replace(workload.state(step), name=f"step {step} of {workload.num_steps}")
    return Case(suite=workload.name, tree=tree, heads=HEADS)


def _times(rows: Sequence[AttentionRow], provider: str, weights: Sequence[float]) -> Times:
    """The weighted sum over all layers, if every step has a time."""
    own = [row for row in rows if row.provider == provider]
    times = [row.p50_us for row in own if row.p50_us is not None]
    if len(times) == len(weights):
        us = sum(time * weight for time, weight in zip(times, weights, strict=True))
        return Times(attention_ms=us * LAYERS / 1e3, num_points=len(times), reason=None)
    reasons = [row.reason for row in own if row.reason] or ["the device was lost"]
    return Times(attention_ms=None, num_points=len(times), reason=reasons[0])


def rows_of(
    workload: Workload,
    providers: Sequence[str],
    counts: dict[str, Counts],
    times: dict[str, Times],
    stamp: Environment | None = None,
) -> list[DeftRow]:
    """A row per provider; counts and times may be of some or none."""
    stamp = stamp or environment()
    return [_row(workload, name, counts.get(name), times.get(name), stamp) for name in providers]


def _row(
    workload: Workload,
    provider: str,
    counts: Counts | None,
    times: Times | None,
    stamp: Environment,
) -> DeftRow:
    kv, partials = LAYERS * LLAMA.token_bytes, 2 * LAYERS * LLAMA.partial_bytes
    return DeftRow(
        question="deft",
        workload=workload.name,
        provider=provider,
        num_trees=len(workload.parts),
        num_steps=workload.num_steps,
        layers=LAYERS,
        heads=HEADS.name,
        head_dim=HEADS.head_dim,
        kv_bytes_unique=None if counts is None else counts.unique_tokens * kv,
        kv_bytes_read=None if counts is None else counts.read_tokens * kv,
        kv_bytes_loaded=None if counts is None else counts.loaded_tokens * kv,
        partial_bytes=None if counts is None else counts.partial_rows * partials,
        kv_bytes_paper=None if counts is None else paper_bytes(counts.read_tokens),
        attention_ms=None if times is None else times.attention_ms,
        num_points=times.num_points if times else 0,
        reason=times.reason if times else "not timed",
        environment=stamp,
    )
