"""What a plan costs on workers: its units in order, the busiest worker's time, and the merge.

    launch + busiest worker + (merge + partial * most partials of a row, where rows have several)
    a worker's time = sum over its units of unit + first tokens * step + read-again tokens * reread

with the costs of a `CostTable` and `compute` in place of what is cheaper than it, as plan/spans.py
weighs them when it cuts. An item becomes one unit for each row tile; a plan that names workers is
taken at its word, other units go in order to whoever is least busy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.cut import STEP
from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.pieces import IntArray
from ramify.attention.plan.plan import AttentionPlan
from ramify.core.jit import njit


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One layer, as cut for workers; units, tokens and workers are those of one KV head."""

    num_workers: int
    unit_item: IntArray  # [U], rising
    unit_worker: IntArray  # [U]
    read_tokens: int  # each row tile reads for itself
    busiest_us: float
    mean_us: float
    us: float

    @property
    def num_units(self) -> int:
        """U."""
        return len(self.unit_item)

    @property
    def busiest_over_mean(self) -> float:
        """1 where all workers have the same to do, or nothing."""
        return self.busiest_us / self.mean_us if self.mean_us > 0 else 1.0

    def workers_of(self, item: int) -> list[int]:
        """Who runs the units of an item, each once."""
        begin, end = np.searchsorted(self.unit_item, [item, item + 1])
        return sorted(set(self.unit_worker[begin:end].tolist()))


def predict(plan: AttentionPlan, heads: HeadShape, tuning: Tuning) -> Prediction:
    """Weigh a plan with the costs that it was cut with. O(pieces log pieces + units x pieces)."""
    costs = tuning.costs
    tile = max(1, tuning.packed_rows // heads.group)
    edges = np.unique(np.concatenate([plan.piece_slot, plan.piece_slot + plan.piece_len]))
    worker = np.full(plan.num_items, -1) if plan.item_worker is None else plan.item_worker
    tiles = -(-(plan.item_hi - plan.item_lo) // tile)
    units = np.empty((2, int(tiles.sum())), dtype=np.int64)
    load = np.zeros(tuning.num_workers)
    read = _weigh(
        plan.item_indptr,
        (plan.piece_len, plan.piece_lo, plan.piece_hi),
        (plan.item_lo, plan.item_hi, worker),
        np.searchsorted(edges, plan.piece_slot),
        edges,
        (tile, tuning.packed_rows // heads.group // 2),
        (costs.step_us / STEP, costs.reread_us / STEP, costs.compute_us / STEP, costs.unit_us),
        units,
        load,
    )
    most = int(plan.partials_per_row.max(initial=0))
    merge_us = costs.merge_us + costs.partial_us * most if most > 1 else 0.0
    busiest = float(load.max())
    return Prediction(
        num_workers=tuning.num_workers,
        unit_item=units[0],
        unit_worker=units[1],
        read_tokens=read,
        busiest_us=busiest,
        mean_us=float(load.mean()),
        us=costs.launch_us + busiest + merge_us,
    )


@njit
def _weigh(item_indptr, pieces, items, place, edges, sizes, costs, units, load):  # type: ignore[no-untyped-def]
    """Fill item and worker of each unit and the workers' load; returns the tokens read."""
    length, lo, hi = pieces
    item_lo, item_hi, item_worker = items
    tile, half_tile = sizes
    first_us, again_us, compute_us, unit_us = costs
    # segment s spans edges s and s + 1; from it, the first one on that nobody has read yet
    unread = np.arange(len(edges))
    u = read = 0
    for w in range(len(item_lo)):
        rows = item_hi[w] - item_lo[w]
        tiles = (rows + tile - 1) // tile
        step = (rows + tiles - 1) // tiles
        for first in range(item_lo[w], item_hi[w], step):
            end = min(first + step, item_hi[w])
            compute = compute_us if end - first > half_tile else compute_us / 2
            cost = unit_us
            for i in range(item_indptr[w], item_indptr[w + 1]):
                if lo[i] >= end or hi[i] <= first:
                    continue
                fresh = 0
                past = edges[place[i]] + length[i]
                at = place[i]
                while edges[at] < past:
                    if unread[at] == at:
                        fresh += edges[at + 1] - edges[at]
                        unread[at] = at + 1
                    # segments that were read are passed over at once from now on
                    after = unread[at]
                    if unread[after] > after:
                        unread[at] = unread[after]
                    at = after
                cost += fresh * max(first_us, compute)
                cost += (length[i] - fresh) * max(again_us, compute)
                read += length[i]
            mine = item_worker[w]
            if mine < 0:
                mine = np.argmin(load)
            units[0, u], units[1, u] = w, mine
            load[mine] += cost
            u += 1
    return read
