"""fused: row tiles, each with all the KV its rows see, cut into spans of equal cost.

Ordered rows are cut into tiles that fill the matrix units (128 packed rows x query heads), at the
places where the two sides share least. A tile's list holds every piece that one of its rows sees,
depth first: a shared prefix is read once per tile, small nodes stand together and are told apart
by row intervals. Lists are laid end to end and cut stream-K; the rows of an item are only those
that see a piece of it, so leaves that were cut off a long prefix keep few rows and few partials.

Sources: DeFT, Yao et al. 2025 (arXiv 2404.00242), one flat list per group of queries;
LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480), equal spans.
"""

from __future__ import annotations

import math

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.pieces import visible
from ramify.attention.plan.plan import AttentionPlan, plan_of_parts
from ramify.attention.plan.row_tiles import row_tiles
from ramify.attention.plan.spans import Spans, cut_spans
from ramify.core.forest import Forest


def plan_fused(
    forest: Forest,
    heads: HeadShape | None = None,
    tuning: Tuning | None = None,
    why: str = "asked for",
) -> AttentionPlan:
    """Items of one row tile each, along the line of all lists.

    Args:
        heads: default 32 query and 8 KV heads of 128, 16 bit.
        why: how the method came to be chosen.
    """
    heads = heads or HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
    tuning = tuning or Tuning()
    seen = visible(forest)
    best: Spans | None = None
    for packed_rows in _tile_sizes(forest.num_rows * heads.group, tuning):
        tiles = row_tiles(forest, seen, max(1, packed_rows // heads.group), tuning)
        is_wide = tiles.most_rows * heads.group * 2 > tuning.packed_rows
        below_us = best.predicted_us if best else math.inf
        rows = forest.ordered_position
        spans = cut_spans(tiles.lists, seen, rows, tuning, is_wide=is_wide, below_us=below_us)
        best = spans or best
    assert best is not None
    names_workers = tuning.fixed_cuts is None
    return plan_of_parts(forest, "fused", best.parts, names_workers=names_workers, why=why)


def _tile_sizes(packed_rows: int, tuning: Tuning) -> list[int]:
    """Packed rows of a tile to try: half tiles read more, but may fill the workers uncut."""
    whole, half = tuning.packed_rows, tuning.packed_rows // 2
    few = half < packed_rows < 2 * tuning.num_workers * whole
    return [whole, half] if few and tuning.fixed_cuts is None else [whole]
