"""Rows of `ramify bench attention`: frozen, units in the names, stamped with their environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ramify.bench.env import Environment
from ramify.bench.rows import read_rows_of


@dataclass(frozen=True, kw_only=True)
class AttentionRow:
    """One provider on one case; one layer. None where nothing was measured or is known."""

    question: str  # always "attention"
    suite: str
    shape: str  # nodes per level x tokens per node
    heads: str  # query / KV
    head_dim: int
    dtype: str
    num_rows: int
    unique_tokens: int
    sharing: float  # tokens read by each row alone over unique tokens
    provider: str
    backend: str | None
    method: str | None  # the one in use, for `auto`
    status: str  # timed, skipped or failed
    reason: str | None  # of what was skipped or failed
    timing: str  # graph (replay, cold L2) or wall
    repeats: int
    p20_us: float | None
    p50_us: float | None
    p80_us: float | None
    floor_us: float
    floor_kind: str  # bytes or tensor
    floor_bytes_us: float
    floor_tensor_us: float
    pct_of_floor: float | None  # floor over median
    unique_gb_per_s: float | None  # unique KV, q and out over median
    useful_tflop_per_s: float | None
    kv_bytes_unique: int
    kv_bytes_reread: int | None
    partial_bytes: int | None  # written once and read once
    plan_cold_us: float | None  # first plan of a new object, kernels compiled
    plan_step_us: float | None  # after one more token per leaf, until the device has it
    plan_host_us: float | None  # of that, what blocks the host
    error_ratio: float | None  # largest error over that of plain torch plus one rounding
    copy_gb_per_s: float  # measured in this run
    gemm_tflop_per_s: float
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What planning costs the host: step after step of a growing tree, and of whole trees."""

    question: str  # always "plan"
    provider: str
    backend: str
    heads: str
    prompt_tokens: int
    steps: int
    branches_first: int
    branches_last: int
    nodes_last: int
    num_advanced: int  # steps that needed no plan
    num_changes: int  # steps that forked or pruned
    append_p50_us: float  # steps that only append a token per branch
    append_p80_us: float
    change_p50_us: float
    change_p80_us: float
    total_ms: float  # of all steps
    full_branches: int
    full_nodes: int
    full_repeats: int
    full_p50_us: float  # plans of trees that share nothing with the one before
    full_p80_us: float
    few_nodes_changed: int  # in the same trees, then planned again
    few_p50_us: float
    few_p80_us: float
    is_sync_forbidden: bool  # on a GPU: whatever waited for it would have raised
    environment: Environment


def read_json(path: Path) -> list[AttentionRow]:
    """The attention rows of a file of JSON lines."""
    return read_rows_of(path, AttentionRow, "attention")
