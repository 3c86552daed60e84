"""node: one item per run of a node, for all rows at or below the node.

Each token is read once. Items are as unequal as the nodes are, which is what the other methods of
the paper repair.

Source: DeFT-Node, Yao et al. 2025 (arXiv 2404.00242).
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.pieces import visible_pieces
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.core.forest import Forest


def plan_node(forest: Forest) -> AttentionPlan:
    """One item per visible run, in depth-first order."""
    pieces = visible_pieces(forest)
    return plan_from_pieces(forest, "node", pieces, np.arange(len(pieces.slot)))
