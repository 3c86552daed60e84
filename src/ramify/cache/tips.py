"""Branches that grow in step, as arrays: the forest of their next step without a look at a node.

A token tree is walked while the device computes a step; what is chosen then costs a few array
operations, and the tree itself is edited once the next step is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.cache.node import Cursor
from ramify.cache.snapshot import build_forest
from ramify.core.forest import Forest
from ramify.core.jit import njit

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tips:
    """B branches, each the last token of a computed node of its own, and the room behind them."""

    forest: Forest  # row b is branch b
    next_slot: IntArray  # [B] first slot of the branch's reservation; -1: it has none

    def lacks_slot(self, branch: IntArray) -> BoolArray:
        """Which tokens [n] have no slot yet if `branch[i]` gets token i, in this order.

        A branch's first token gets the slot reserved for it, as the first child of a node takes
        over its reservation.
        """
        return _lacks_slot(branch, self.next_slot)

    def grown(self, branch: IntArray, slots: IntArray, is_kept: BoolArray) -> Forest:
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
        num_nodes, num_runs = _grow(
            (forest.parent, forest.length, forest.run_indptr),
            (forest.run_begin, forest.run_len),
            (forest.query_node, is_kept),
            (branch, slots),
            nodes,
            runs,
            query_node,
        )
        length = nodes[1, :num_nodes]
        return Forest(
            parent=nodes[0, :num_nodes].astype(np.int32),
            length=length,
            run_indptr=nodes[2, : num_nodes + 1],
            run_begin=runs[0, :num_runs],
            run_len=runs[1, :num_runs],
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
) -> tuple[int, int]:
    """Fill a forest's arrays path by path, as `build_forest` does, so that bits are the same.

    Args:
        nodes: parent, length and run_indptr of the forest before.
        runs: begin and length of its runs.
        tips: node of each branch, and whether it stays as it is.
        rows: branch and slot of each new token.
        out_nodes, out_runs: the same of the new forest.
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
    index = np.full(len(parent), -1)
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


def tips_of(cursors: Sequence[Cursor]) -> Tips | None:
    """The ends of paths as they are now; None where one is not computed or not a branch's own."""
    nodes = [cursor.node for cursor in cursors]
    if not all(node.is_tip and node.is_computed for node in nodes):
        return None
    next_slot = [node.reserved[0].begin if node.reserved else -1 for node in nodes]
    return Tips(
        forest=build_forest([(node, len(node.tokens)) for node in nodes]),
        next_slot=np.array(next_slot, dtype=np.int64),
    )
