"""lean: stream-K over every branch's own path, equal lean tiles per worker.

All paths are laid end to end and every worker gets the same number of tiles of 64 tokens, so ragged
batches and few long requests keep all SMs busy. Nothing is shared between branches; the unit that
completes a row merges its partials inside the launch, and nobody waits.

Source: LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.cut import PIECE, TOKENS
from ramify.attention.plan.per_branch import paths_of_tips
from ramify.attention.plan.pieces import with_rows
from ramify.attention.plan.plan import AttentionPlan, plan_of_parts
from ramify.attention.plan.spans import Lists, cut_spans
from ramify.core.forest import Forest


def plan_lean(forest: Forest, tuning: Tuning | None = None) -> AttentionPlan:
    """Items of one branch each, as many as workers plus the cuts at the ends of paths."""
    tuning = tuning or Tuning()
    tips, pieces, tip = paths_of_tips(forest)
    entries = np.zeros((4, len(tip)), dtype=np.int32)
    entries[PIECE], entries[TOKENS] = np.arange(len(tip)), pieces.length
    counts = np.bincount(tip, minlength=len(tips))
    lists = Lists(
        indptr=np.append(0, np.cumsum(counts)),
        entries=entries,
        row_lo=forest.row_lo[tips],
        row_hi=forest.own_hi[tips],
    )
    # equal tiles: what a unit costs beside them is not weighed
    even = replace(tuning, costs=replace(tuning.costs, unit_us=0.0))
    seen, rows = with_rows(forest, pieces), forest.ordered_position
    spans = cut_spans(lists, seen, rows, even, is_wide=False)
    assert spans is not None
    return plan_of_parts(forest, "lean", spans.parts, names_workers=tuning.fixed_cuts is None)
