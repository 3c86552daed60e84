"""per_branch: every branch reads its whole path. The baseline, and best where nothing is shared.

An item is one node that has rows, with all runs from the root down to it. Rows of one node form
one query tile, as a prefill chunk does in any engine; rows of different nodes share nothing, so a
prefix is read once per branch.

Source: Flash-Decoding, Dao et al. 2023, as serving engines apply it to each request.
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.pieces import IntArray, runs_of_nodes
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.core.forest import Forest


def plan_per_branch(forest: Forest) -> AttentionPlan:
    """One item per node with rows; KV read = sum of their path lengths."""
    nodes = forest.node_order
    tips = nodes[(forest.own_hi > forest.row_lo)[nodes]]
    tip, node, limit = _paths(forest, tips)
    pieces, source = runs_of_nodes(forest, node, limit)
    item = tip[source]
    rows = (forest.row_lo[tips][item], forest.own_hi[tips][item])
    return plan_from_pieces(forest, "per_branch", pieces, item, row_range=rows)


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
