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

from ramify.cache.node import Cursor, Node
from ramify.cache.snapshot import build_forest
from ramify.core.forest import Forest
from ramify.core.jit import njit

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
TieArray = npt.NDArray[np.int8]

FREE, APART, NEEDED = 0, 1, 2
"""What ties a node: nothing; it did not merge with its only child; paths beside the branches."""


class Growth(NamedTuple):
    """What tokens behind the branches make of their forest."""

    forest: Forest  # row i is token i
    place: IntArray  # [N] where each node of the forest before is in it; -1: no row sees it
    branch: IntArray  # [n] of each token
    is_kept: BoolArray  # [B]


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
        return _lacks_slot(branch, self.next_slot)

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
        num_nodes, num_runs = _grow(
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
        return Growth(grown, place, branch, is_kept)

    def pruned(self, growth: Growth, cursors: Sequence[Cursor]) -> Tips:
        """The tips once a growth was laid and the branches without a token, but for those kept,
        were pruned, as `tips_of` would find them.

        Args:
            cursors: the paths of the new branches.
        """
        grown = growth.forest
        nodes = np.empty((3, grown.num_nodes + 1), dtype=np.int64)
        runs = np.empty((2, len(grown.run_begin)), dtype=np.int64)
        query_node, tie = grown.query_node.copy(), np.zeros(grown.num_nodes, dtype=np.int8)
        _tie(
            (self.forest.parent, self.forest.query_node),
            (self.tie, growth.is_kept),
            growth.place,
            tie,
        )
        num_nodes, num_runs = _merge(
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


@njit
def _lacks_slot(branch: IntArray, next_slot: IntArray) -> BoolArray:
    is_taken = next_slot < 0
    lacks = np.empty(len(branch), dtype=np.bool_)
    for i in range(len(branch)):
        lacks[i] = is_taken[branch[i]]
        is_taken[branch[i]] = True
    return lacks


@njit
def _grow(
    nodes: tuple[npt.NDArray[np.int32], IntArray, IntArray],
    runs: tuple[IntArray, IntArray],
    tips: tuple[IntArray, BoolArray],
    rows: tuple[IntArray, IntArray],
    out_nodes: IntArray,
    out_runs: IntArray,
    query_node: IntArray,
    index: IntArray,
) -> tuple[int, int]:
    """Fill a forest's arrays path by path, as `build_forest` does, so that bits are the same.

    Args:
        nodes: parent, length and run_indptr of the forest before.
        runs: begin and length of its runs.
        tips: node of each branch, and whether it stays as it is.
        rows: branch and slot of each new token.
        out_nodes, out_runs: the same of the new forest.
        index: where each node of the forest before is in it, -1 so far.
    Returns:
        its nodes and runs.
    """
    parent, length, run_indptr = nodes
    run_begin, run_len = runs
    tip, is_kept = tips
    branch, slot = rows
    num_rows_of = np.zeros(len(tip), dtype=np.int64)
    for row in range(len(branch)):
        num_rows_of[branch[row]] += 1
    fresh = np.empty(len(parent), dtype=np.int64)
    num_nodes = num_runs = 0
    out_nodes[2, 0] = 0
    for row in range(len(branch)):
        count, node = 0, tip[branch[row]]
        in_place = num_rows_of[branch[row]] == 1 and not is_kept[branch[row]]
        while node >= 0 and index[node] < 0:
            fresh[count] = node
            count += 1
            node = parent[node]
        above = index[node] if node >= 0 else -1
        for i in range(count - 1, -1, -1):
            node = fresh[i]
            for run in range(run_indptr[node], run_indptr[node + 1]):
                out_runs[0, num_runs], out_runs[1, num_runs] = run_begin[run], run_len[run]
                num_runs += 1
            out_nodes[0, num_nodes], out_nodes[1, num_nodes] = above, length[node]
            above = index[node] = num_nodes
            num_nodes += 1
            out_nodes[2, num_nodes] = num_runs
        if not in_place:
            out_nodes[0, num_nodes], out_nodes[1, num_nodes] = above, 0
            num_nodes += 1
        # the row's node is the last one, and its last run the last
        out_nodes[1, num_nodes - 1] += 1
        last = num_runs - 1
        if in_place and out_runs[0, last] + out_runs[1, last] == slot[row]:
            out_runs[1, last] += 1
        else:
            out_runs[0, num_runs], out_runs[1, num_runs] = slot[row], 1
            num_runs += 1
        out_nodes[2, num_nodes] = num_runs
        query_node[row] = num_nodes - 1
    return num_nodes, num_runs


@njit
def _tie(
    before: tuple[npt.NDArray[np.int32], IntArray],
    ties: tuple[TieArray, BoolArray],
    place: IntArray,
    out_tie: TieArray,
) -> None:
    """Fill the ties of a grown forest's nodes.

    Args:
        before: parent of each node before, and node of each branch.
        ties: of those nodes, and which branches stay as they are.
        place: where those nodes are now; -1: on no row's path.
    """
    parent, tip = before
    tie = ties[0].copy()
    for branch in range(len(tip)):
        if ties[1][branch]:
            tie[tip[branch]] = NEEDED
    for node in range(len(parent) - 1, -1, -1):  # children first
        if place[node] >= 0:
            out_tie[place[node]] = tie[node]
        elif tie[node] == NEEDED and parent[node] >= 0:
            tie[parent[node]] = NEEDED  # it stays in the tree, below a parent that may stay here


@njit
def _merge(
    nodes: tuple[npt.NDArray[np.int32], IntArray, IntArray],
    runs: tuple[IntArray, IntArray],
    tie: TieArray,
    out_nodes: IntArray,
    out_runs: IntArray,
    query_node: IntArray,
) -> tuple[int, int]:
    """Let nodes take over their only child where slots touch, as a token tree does when it prunes.

    `tie` and `query_node` are put right in place. Returns the nodes and runs that are left.
    """
    parent, length, run_indptr = nodes
    run_begin, run_len = runs
    num_children = np.zeros(len(parent) + 1, dtype=np.int64)  # of nodes, then of none
    for node in range(len(parent)):
        num_children[parent[node]] += 1
    place = np.empty(len(parent), dtype=np.int64)
    num_nodes = num_runs = 0
    out_nodes[2, 0] = 0
    for node in range(len(parent)):  # parents first, and an only child right behind its parent
        above, first = parent[node], run_indptr[node]
        is_merged = above >= 0 and num_children[above] == 1 and tie[place[above]] == FREE
        if is_merged:
            is_merged = out_runs[0, num_runs - 1] + out_runs[1, num_runs - 1] == run_begin[first]
        if is_merged:
            place[node] = place[above]
            out_nodes[1, place[node]] += length[node]
            out_runs[1, num_runs - 1] += run_len[first]
            tie[place[node]] = tie[node]
            first += 1
        else:
            place[node] = num_nodes
            out_nodes[0, num_nodes] = place[above] if above >= 0 else -1
            out_nodes[1, num_nodes] = length[node]
            tie[num_nodes] = tie[node]
            num_nodes += 1
        for run in range(first, run_indptr[node + 1]):
            out_runs[0, num_runs], out_runs[1, num_runs] = run_begin[run], run_len[run]
            num_runs += 1
        out_nodes[2, num_nodes] = num_runs
    for row in range(len(query_node)):
        query_node[row] = place[query_node[row]]
    return num_nodes, num_runs


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
