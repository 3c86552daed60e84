"""What a method reads and writes in all steps of a workload, counted from the plan of every step.

DeFT counts KV as tokens x Hq x D x 4 bytes a layer: keys and values in 16 bit, per query head,
which for 32 query and 8 KV heads is four times what is stored. Both are kept here. Partial results
it does not count; here they are those of the plan, written once and read once in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.attention import AttentionPlan, HeadShape, build_plan
from ramify.attention.plan.cost import Tuning
from ramify.bench.deft.workloads import Workload

LAYERS = 32  # of Llama-3-8B
LLAMA = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
TILE_ROWS = 128  # packed rows that one load of KV can serve
REPORT_EVERY = 2000  # steps


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Tokens and rows of one layer, summed over steps."""

    unique_tokens: int = 0
    read_tokens: int = 0  # each item of a plan reads its pieces once
    loaded_tokens: int = 0  # an item of many rows loads them for every 128 packed rows
    partial_rows: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            unique_tokens=self.unique_tokens + other.unique_tokens,
            read_tokens=self.read_tokens + other.read_tokens,
            loaded_tokens=self.loaded_tokens + other.loaded_tokens,
            partial_rows=self.partial_rows + other.partial_rows,
        )


def paper_bytes(read_tokens: int, heads: HeadShape = LLAMA, layers: int = LAYERS) -> int:
    """KV traffic as the paper counts it."""
    return read_tokens * heads.num_q_heads * heads.head_dim * 4 * layers


def count_workload(
    workload: Workload,
    methods: Sequence[str],
    *,
    tuning: Tuning | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Counts]:
    """Plan every step with every method.

    Args:
        tuning: the GPU that plans are cut for; default an H200.
    Cost: about a millisecond a step.
    """
    tuning = tuning or Tuning()
    totals = {method: Counts() for method in methods}
    for step, state in enumerate(workload.states(), start=1):
        forest = state.forest(room=0)
        for method in methods:
            totals[method] += _counts_of(build_plan(forest, method, heads=LLAMA, tuning=tuning))
        if step % REPORT_EVERY == 0:
            progress(f"{workload.name}: {step} of {workload.num_steps} steps counted")
    return totals


def _counts_of(plan: AttentionPlan) -> Counts:
    packed = (plan.item_hi - plan.item_lo) * LLAMA.group
    tokens = np.diff(np.append(0, np.cumsum(plan.piece_len))[plan.item_indptr])
    return Counts(
        unique_tokens=plan.unique_tokens,
        read_tokens=plan.read_tokens,
        loaded_tokens=int((tokens * -(-packed // TILE_ROWS)).sum()),
        partial_rows=plan.partial_rows,
    )
