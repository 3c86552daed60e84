"""node_chunk: nodes cut in blocks of equal length, each block with the rows of its node.

Balances long nodes; a tree of many short nodes still gives many small items.

Source: DeFT-Node-Chunk, Yao et al. 2025 (arXiv 2404.00242).
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.pieces import cut_in_blocks, visible_pieces
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.core.forest import Forest


def plan_node_chunk(forest: Forest, block_tokens: int) -> AttentionPlan:
    """One item per block of `block_tokens` tokens of a node, in depth-first order."""
    pieces = visible_pieces(forest)
    cut, _, block = cut_in_blocks(pieces, pieces.offset, block_tokens)
    # a block of several runs is one item: a new one starts where node or block changes
    changes = (np.diff(cut.node, prepend=-1) != 0) | (np.diff(block, prepend=-1) != 0)
    return plan_from_pieces(forest, "node_chunk", cut, np.cumsum(changes) - 1)
