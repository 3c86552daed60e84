"""per_branch: every branch reads its whole path. The baseline, and best where nothing is shared.

An item is one node that has rows, with all runs from the root down to it. Rows of one node form
one query tile, as a prefill chunk does in any engine; rows of different nodes share nothing, so a
prefix is read once per branch. For a GPU every path is cut into the same number of parts, the
fewest that keep it about as busy as any number would.

Source: Flash-Decoding, Dao et al. 2023, as serving engines apply it to each request.
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.pieces import IntArray, Pieces, cut_in_blocks, runs_of_nodes
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.core.forest import Forest

BUSY_ENOUGH = 0.85  # of the best use of the workers that any number of parts gives
PART_STEP = 64  # parts are whole steps
MAX_PARTS = 128


def plan_per_branch(forest: Forest, tuning: Tuning | None = None) -> AttentionPlan:
    """One item per node with rows, or `fixed_parts` of them; KV read = sum of the path lengths.

    With fixed cuts the parts have so many tokens each, for paths of any length.
    """
    tips, pieces, item = paths_of_tips(forest)
    rows = (forest.row_lo[tips], forest.own_hi[tips])
    if tuning is None or not len(tips):
        return plan_from_pieces(forest, "per_branch", pieces, item, row_range=rows)
    total = np.bincount(item, weights=pieces.length, minlength=len(tips)).astype(np.int64)
    if tuning.fixed_cuts is not None:
        block = np.full(len(tips), tuning.fixed_cuts)
    else:
        parts = fixed_parts(total, tuning.num_workers)
        block = np.maximum(1, -(-total // (parts * PART_STEP))) * PART_STEP
    before = np.cumsum(pieces.length) - pieces.length
    first = np.flatnonzero(np.diff(item, prepend=-1))
    start = before - before[first][np.searchsorted(item[first], item)]
    cut, source, number = cut_in_blocks(pieces, start, block[item])
    of = item[source]
    new = (np.diff(of, prepend=-1) != 0) | (np.diff(number, prepend=-1) != 0)
    rows = (rows[0][of[new]], rows[1][of[new]])
    return plan_from_pieces(forest, "per_branch", cut, np.cumsum(new) - 1, row_range=rows)


def fixed_parts(length: IntArray, num_workers: int) -> int:
    """Parts per path: the fewest whose last wave is full enough, with the longest path in mind."""
    most = min(MAX_PARTS, max(1, -(-int(length.max()) // PART_STEP)))
    waves = np.arange(1, most + 1) * len(length) / num_workers
    use = waves / np.ceil(waves)
    return int(np.flatnonzero(use >= BUSY_ENOUGH * use.max())[0]) + 1


def paths_of_tips(forest: Forest) -> tuple[IntArray, Pieces, IntArray]:
    """Nodes with rows in depth-first order, the pieces of their paths, and each piece's tip."""
    nodes = forest.node_order
    tips = nodes[(forest.own_hi > forest.row_lo)[nodes]]
    tip, node, limit = _paths(forest, tips)
    pieces, source = runs_of_nodes(forest, node, limit)
    return tips, pieces, tip[source]


def _paths(forest: Forest, tips: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """For every tip its path, root first: tip index, node, and tokens of the node to read."""
    tip, node, limit = np.arange(len(tips)), tips, forest.own_visible_len[tips]
    levels = []
    while len(node):
        levels.append((tip, node, limit))
        above = forest.parent[node]
        tip, node = tip[above >= 0], above[above >= 0].astype(np.int64)
        limit = forest.length[node]
    if not levels:
        return tip, node, limit
    # levels run from the tips up, so the last one met goes first within its path
    tip, node, limit = (np.concatenate(parts) for parts in zip(*levels[::-1], strict=True))
    order = np.argsort(tip, kind="stable")
    return tip[order], node[order], limit[order]
