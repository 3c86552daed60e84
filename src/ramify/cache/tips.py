"""Branches that grow in step, as arrays: the forest of their next step without a look at a node.

A token tree is walked while the device computes a step; what is chosen then costs a few array
operations, and the tree itself is edited once the next step is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.cache import tips_loops as loops
from ramify.cache.node import Cursor, Node
from ramify.cache.snapshot import build_forest
from ramify.cache.tips_loops import APART, FREE, NEEDED, TieArray
from ramify.core.forest import Forest

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Growth(NamedTuple):
    """What tokens behind the branches make of their forest."""

    forest: Forest  # row i is token i
    place: IntArray  # [N] where each node of the forest before is in it; -1: no row sees it
    is_kept: BoolArray  # [B] branches whose node stays as it is


@dataclass(frozen=True, kw_only=True, eq=False)
class Tips:
    """B branches, each the last token of a computed node of its own, and the room behind them."""

    forest: Forest  # row b is branch b
    tie: TieArray  # [N] FREE: the node merges with its child once that is its only one
    next_slot: IntArray  # [B] first slot of the branch's reservation; -1: it has none

    def lacks_slot(self, branch: IntArray) -> BoolArray:
        """Which tokens [n] have no slot yet if `branch[i]` gets token i, in this order.

        A branch's first token gets the slot reserved for it, as the first child of a node takes
        over its reservation.
        """
        return loops.lacks_slot(branch, self.next_slot)

    def grown(self, branch: IntArray, slots: IntArray, is_kept: BoolArray) -> Growth:
        """The forest whose row i is a new token behind a branch.

        Args:
            branch: [n] the branch of each token.
            slots: [n] the slot of each token; the reserved ones as `lacks_slot` says.
            is_kept: [B] branches whose node stays as it is for others to grow from.
        """
        forest = self.forest
        most_nodes, most_runs = forest.num_nodes + len(branch), len(forest.run_begin) + len(branch)
        nodes = np.empty((3, most_nodes + 1), dtype=np.int64)
        runs = np.empty((2, most_runs), dtype=np.int64)
        query_node = np.empty(len(branch), dtype=np.int64)
        place = np.full(forest.num_nodes, -1)
        num_nodes, num_runs = loops.grow(
            (forest.parent, forest.length, forest.run_indptr),
            (forest.run_begin, forest.run_len),
            (forest.query_node, is_kept),
            (branch, slots),
            nodes,
            runs,
            query_node,
            place,
        )
        grown = _forest(nodes[:, : num_nodes + 1], runs[:, :num_runs], query_node)
        return Growth(grown, place, is_kept)

    def pruned(self, growth: Growth, cursors: Sequence[Cursor]) -> Tips:
        """The tips as `tips_of` finds them once a growth was laid and dead branches were pruned.

        Dead are those that got no token and were not kept.

        Args:
            cursors: the paths of the new branches.
        """
        grown = growth.forest
        nodes = np.empty((3, grown.num_nodes + 1), dtype=np.int64)
        runs = np.empty((2, len(grown.run_begin)), dtype=np.int64)
        query_node, tie = grown.query_node.copy(), np.zeros(grown.num_nodes, dtype=np.int8)
        loops.tie(
            (self.forest.parent, self.forest.query_node),
            (self.tie, growth.is_kept),
            growth.place,
            tie,
        )
        num_nodes, num_runs = loops.merge(
            (grown.parent, grown.length, grown.run_indptr),
            (grown.run_begin, grown.run_len),
            tie,
            nodes,
            runs,
            query_node,
        )
        return Tips(
            forest=_forest(nodes[:, : num_nodes + 1], runs[:, :num_runs], query_node),
            tie=tie[:num_nodes],
            next_slot=_next_slot([cursor.node for cursor in cursors]),
        )


def _forest(nodes: IntArray, runs: IntArray, query_node: IntArray) -> Forest:
    """A forest of which each row sees its whole node.

    Args:
        nodes: [3, N + 1] parent and length, then run_indptr.
        runs: [2, R] begin and length.
    """
    length = nodes[1, :-1]
    return Forest(
        parent=nodes[0, :-1].astype(np.int32),
        length=length,
        run_indptr=nodes[2],
        run_begin=runs[0],
        run_len=runs[1],
        query_node=query_node,
        query_len=length[query_node],
    )


def tips_of(cursors: Sequence[Cursor]) -> Tips | None:
    """The ends of paths as they are now; None where one is not computed or not a branch's own."""
    tips = [cursor.node for cursor in cursors]
    if not all(node.is_tip and node.is_computed for node in tips):
        return None
    forest = build_forest([(node, len(node.tokens)) for node in tips])
    return Tips(forest=forest, tie=_ties(forest, tips), next_slot=_next_slot(tips))


def _ties(forest: Forest, tips: Sequence[Node]) -> TieArray:
    """The tie of each node of a forest: whether paths end there, or something hangs off it."""
    parent = forest.parent.tolist()
    num_children = np.bincount(forest.parent + 1, minlength=len(parent) + 1)[1:].tolist()
    ties = [-1] * len(parent)
    for tip, place in zip(tips, forest.query_node.tolist(), strict=True):
        node, ties[place] = tip, FREE
        while (place := parent[place]) >= 0 and ties[place] < 0:
            assert node.parent is not None, "a forest's nodes hang as the tree's"
            node = node.parent
            if node.cursors or node.published or len(node.children) > num_children[place]:
                ties[place] = NEEDED
            else:  # with one child it would have merged if it could
                ties[place] = FREE if num_children[place] > 1 else APART
    return np.array(ties, dtype=np.int8)


def _next_slot(tips: Sequence[Node]) -> IntArray:
    """[B] first slot of each node's reservation; -1: it has none."""
    begins = [node.reserved[0].begin if node.reserved else -1 for node in tips]
    return np.array(begins, dtype=np.int64)
