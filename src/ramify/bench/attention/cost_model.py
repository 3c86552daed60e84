"""A layer's time as counted work times a table of costs.

    launch + (max(steps * step + rereads * reread, products * compute)
              + units * unit + partials * partial) / SMs

Memory and matrix units work at the same time, everything else comes on top. A launch of its own for
the merge, where a backend has one, counts with the partials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramify.attention import AttentionPlan, HeadShape

STEP_TOKENS = 64  # of one KV head
TILE_ROWS = 128  # packed rows (rows x query heads per KV head) of a product
PARTIAL_ROWS = 16  # packed rows of a partial result


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Microseconds of one SM while all SMs do the same; `launch_us` is of the whole device."""

    step_us: float = 0.0  # 64 tokens of K and V of one KV head from memory
    reread_us: float = 0.0  # the same from L2
    compute_us: float = 0.0  # 64 tokens x 128 packed rows, both products and the softmax
    unit_us: float = 0.0  # start and end of a work unit
    partial_us: float = 0.0  # writing and merging the partial result of 16 packed rows
    launch_us: float = 0.0  # a launch, and one unit's time alone beyond its share


@dataclass(frozen=True, kw_only=True)
class Work:
    """How often each cost occurs in one layer."""

    step: float
    reread: float
    compute: float
    unit: float
    partial: float
    launch: float = 1.0

    def predicted_us(self, costs: Costs, num_sms: int) -> float:
        """The formula above."""
        memory = self.step * costs.step_us + self.reread * costs.reread_us
        busy = max(memory, self.compute * costs.compute_us)
        busy += self.unit * costs.unit_us + self.partial * costs.partial_us
        return self.launch * costs.launch_us + busy / num_sms


def work_of(plan: AttentionPlan, heads: HeadShape) -> Work:
    """Count a plan's work; items of more than `TILE_ROWS` packed rows read their KV per tile."""
    packed = (plan.item_hi - plan.item_lo) * heads.group
    tiles = -(-packed // TILE_ROWS)
    tokens = np.add.reduceat(plan.piece_len, plan.item_indptr[:-1]) if len(tiles) else packed
    steps = heads.num_kv_heads / STEP_TOKENS
    return Work(
        step=plan.unique_tokens * steps,
        reread=(float((tokens * tiles).sum()) - plan.unique_tokens) * steps,
        compute=float((tokens * packed).sum()) / TILE_ROWS * steps,
        unit=float(tiles.sum()) * heads.num_kv_heads,
        partial=plan.partial_rows * heads.group / PARTIAL_ROWS * heads.num_kv_heads,
    )
