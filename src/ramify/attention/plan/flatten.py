"""flatten: all tokens of the forest in depth-first order, cut evenly into blocks.

Blocks span nodes and trees, so all but the last hold exactly `block_tokens` tokens. Depth-first
order keeps the rows of neighbouring nodes nested or adjacent, hence an item's rows are one
interval and few of its (row, token) cells are masked.

Source: DeFT-Flatten, Yao et al. 2025 (arXiv 2404.00242), with row intervals for its bit masks.
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.pieces import cut_in_blocks, visible_pieces
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.core.forest import Forest


def plan_flatten(forest: Forest, block_tokens: int) -> AttentionPlan:
    """One item per block of `block_tokens` flattened tokens."""
    pieces = visible_pieces(forest)
    start = np.cumsum(pieces.length) - pieces.length
    cut, _, block = cut_in_blocks(pieces, start, block_tokens)
    return plan_from_pieces(forest, "flatten", cut, block)
