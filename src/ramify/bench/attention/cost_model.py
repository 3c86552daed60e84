"""A layer's time as counted work times a table of costs.

    launch + depth * partial + max(unit + longest * step,
                                   (max(steps * step + rereads * reread, products * compute)
                                    + units * unit + merges * volume) / SMs)

Memory and matrix units work at the same time, everything else comes on top; few units take as long
as the longest of them. A launch of its own for the merge, where a backend has one, counts with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramify.attention import AttentionPlan, HeadShape
from ramify.attention.plan.cost import CostTable

STEP_TOKENS = 64  # of one KV head
TILE_ROWS = 128  # packed rows (rows x query heads per KV head) of a product
MERGE_ROWS = 16  # packed rows of a partial result


@dataclass(frozen=True, kw_only=True)
class Costs(CostTable):
    """The planner's table, and what it does not weigh by volume.

    `merge_us` and `masked_part` of the table are not fitted: they keep their defaults.
    """

    volume_us: float = 0.0  # writing and merging the partial results of 16 packed rows

    @property
    def table(self) -> CostTable:
        """What the planner weighs with."""
        names = CostTable.__dataclass_fields__
        return CostTable(**{name: getattr(self, name) for name in names})


NO_COSTS = Costs(
    step_us=0.0, reread_us=0.0, compute_us=0.0, unit_us=0.0, partial_us=0.0, launch_us=0.0
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """How often each cost occurs in one layer."""

    step: float
    reread: float
    compute: float
    unit: float
    merge: float
    depth: float  # partial results of the row that has most
    longest: float  # steps of the longest unit

    def predicted_us(self, costs: Costs, num_sms: int) -> float:
        """The formula above."""
        memory = self.step * costs.step_us + self.reread * costs.reread_us
        busy = max(memory, self.compute * costs.compute_us)
        busy += self.unit * costs.unit_us + self.merge * costs.volume_us
        alone = costs.unit_us + self.longest * costs.step_us
        return costs.launch_us + self.depth * costs.partial_us + max(alone, busy / num_sms)


def work_of(plan: AttentionPlan, heads: HeadShape) -> Work:
    """Count a plan's work; items of more than `TILE_ROWS` packed rows read their KV per tile."""
    packed = (plan.item_hi - plan.item_lo) * heads.group
    tiles = -(-packed // TILE_ROWS)
    tokens = np.diff(np.append(0, np.cumsum(plan.piece_len))[plan.item_indptr])
    steps = heads.num_kv_heads / STEP_TOKENS
    depth = int(plan.partials_per_row.max(initial=0))
    return Work(
        step=plan.unique_tokens * steps,
        reread=(float((tokens * tiles).sum()) - plan.unique_tokens) * steps,
        compute=float((tokens * packed).sum()) / TILE_ROWS * steps,
        unit=float(tiles.sum()) * heads.num_kv_heads,
        merge=plan.partial_rows * heads.group / MERGE_ROWS * heads.num_kv_heads,
        depth=depth if depth > 1 else 0,
        longest=int(tokens.max(initial=0)) / STEP_TOKENS,
    )
