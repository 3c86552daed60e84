"""Row tiles against every other cut of the rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention.plan.cost import CostTable, Tuning
from ramify.attention.plan.cut import STEP
from ramify.attention.plan.pieces import visible
from ramify.attention.plan.row_tiles import row_tiles
from ramify.attention.reference import visibility_ref
from ramify.core.forest import Forest
from ramify.testing.trees import RandomForestSpec, random_forest


def seen_by_rows(forest: Forest) -> np.ndarray:
    """[Q, tokens] whether an ordered row sees a token, by the reference's walk over ancestors."""
    return visibility_ref(forest)[1].numpy()[forest.row_order]


def cost_of_tile(seen: np.ndarray, begin: int, end: int, costs: CostTable) -> float:
    """Microseconds of a tile beyond what any cut pays: a unit, what the next re-reads, masks."""
    us = costs.unit_us
    if end < len(seen):
        us += (seen[end - 1] & seen[end]).sum() * costs.reread_us / STEP
    if end - begin > 1:
        private = seen[begin:end] & (seen.sum(axis=0) == 1)
        us += private.sum() * costs.masked_part * costs.step_us / STEP
    return us


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spec=st.builds(
        RandomForestSpec,
        num_roots=st.integers(1, 4),
        max_depth=st.integers(1, 8),
        max_fan_out=st.sampled_from([1, 3, 30]),
        max_nodes=st.integers(3, 50),
        max_length=st.sampled_from([1, 12, 400]),
        num_rows=st.sampled_from([1, 2, 9, 60]),
    ),
    most=st.integers(1, 40),
    # powers of two: sums in any order are exact, so equal costs are equal
    costs=st.sampled_from(
        [
            CostTable(reread_us=0.75, step_us=1.0, masked_part=0.0625),
            CostTable(reread_us=4.0, step_us=1.0, masked_part=0.0, unit_us=0.0),
            CostTable(reread_us=0.25, step_us=2.0, masked_part=1.0, unit_us=0.125),
        ]
    ),
    is_fixed=st.booleans(),
)
def test_no_cut_into_tiles_costs_less(
    seed: int, spec: RandomForestSpec, most: int, costs: CostTable, is_fixed: bool
) -> None:
    """The least over all cuts, by the plain recursion over where the last tile begins."""
    forest = random_forest(seed, spec).forest
    # tiles are weighed as if whoever sees some of a node saw all of it
    forest = replace(forest, query_len=forest.length[forest.query_node])
    seen = seen_by_rows(forest)
    # strangers are parted by a rule of thumb where cuts are not fixed
    is_fixed = is_fixed or not (seen[1:] & seen[:-1]).any(axis=1).all()
    tuning = Tuning(costs=costs, fixed_cuts=64 if is_fixed else None)
    edges = row_tiles(forest, visible(forest), most, tuning).edges.tolist()
    walls = set(forest.row_lo[forest.parent < 0].tolist()) if is_fixed else set()
    least = [0.0]
    for end in range(1, forest.num_rows + 1):
        ways = []
        for begin in range(end - 1, max(end - most, 0) - 1, -1):
            ways.append(least[begin] + cost_of_tile(seen, begin, end, costs))
            if begin in walls:
                break
        least.append(min(ways))
    assert edges[0] == 0 and edges[-1] == forest.num_rows
    assert all(1 <= end - begin <= most for begin, end in pairwise(edges))
    assert walls.intersection(range(forest.num_rows)) <= set(edges)
    assert sum(cost_of_tile(seen, *tile, costs) for tile in pairwise(edges)) == least[-1]
