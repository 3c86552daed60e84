"""From what became of a provider on a case to its row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ramify.bench.attention.ceilings import Ceilings, Floor
from ramify.bench.attention.problem import Problem
from ramify.bench.attention.providers.base import Facts
from ramify.bench.attention.rows import AttentionRow
from ramify.bench.attention.timers import Run, Timer
from ramify.bench.env import Environment


@dataclass(frozen=True, kw_only=True)
class PlanTimes:
    """See the row's columns of these names; None where there is nothing to plan."""

    cold_us: float | None = None
    step_us: float | None = None
    host_us: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A provider that was checked, ready to be timed; or why it is not."""

    status: str
    reason: str | None = None
    run: Run | None = None
    rehearsal_us: float = 0.0
    facts: Facts = field(default_factory=Facts)
    error: float | None = None
    plan: PlanTimes = field(default_factory=PlanTimes)


def make_row(
    problem: Problem,
    name: str,
    result: Result,
    samples: list[float] | None,
    floor: Floor,
    ceilings: Ceilings,
    timer: Timer,
    stamp: Environment,
) -> AttentionRow:
    """The row of one provider; `samples` are its microseconds, None if it was not timed."""
    case, forest, facts = problem.case, problem.forest, result.facts
    quantiles: list[Any] = [None] * 3
    if samples is not None:
        quantiles = np.percentile(samples, [20, 50, 80]).tolist()
    p50_us = quantiles[1]
    reread = None if facts.kv_bytes_read is None else facts.kv_bytes_read - floor.kv_bytes
    return AttentionRow(
        question="attention",
        suite=case.suite,
        shape=case.tree.name,
        heads=case.heads.name,
        head_dim=case.heads.head_dim,
        dtype=str(problem.dtype).removeprefix("torch."),
        num_rows=forest.num_rows,
        unique_tokens=forest.unique_tokens,
        sharing=forest.path_tokens / max(forest.unique_tokens, 1),
        provider=name,
        backend=facts.backend,
        method=facts.method,
        status=result.status,
        reason=result.reason,
        timing=timer.kind,
        repeats=len(samples or ()),
        p20_us=quantiles[0],
        p50_us=p50_us,
        p80_us=quantiles[2],
        floor_us=floor.us,
        floor_kind=floor.kind,
        floor_bytes_us=floor.bytes_us,
        floor_tensor_us=floor.tensor_us,
        pct_of_floor=p50_us and 100 * floor.us / p50_us,
        unique_gb_per_s=p50_us and (floor.kv_bytes + floor.qo_bytes) / p50_us / 1e3,
        useful_tflop_per_s=p50_us and floor.flop / p50_us / 1e6,
        kv_bytes_unique=floor.kv_bytes,
        kv_bytes_reread=reread,
        partial_bytes=facts.partial_bytes,
        plan_cold_us=result.plan.cold_us,
        plan_step_us=result.plan.step_us,
        plan_host_us=result.plan.host_us,
        error_ratio=_finite(result.error),
        copy_gb_per_s=ceilings.copy_bytes_per_s / 1e9,
        gemm_tflop_per_s=ceilings.gemm_flop_per_s / 1e12,
        environment=stamp,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
