"""Forests of branches that grow in step as compiled loops; tips.py says what they are for.

lacks_slot    which tokens find no slot reserved for them
grow          the forest with a token more behind each chosen branch
tie           which of its nodes others than the branches need
merge         the same with nodes merged, as the token tree merges them when it prunes
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ramify.core.jit import njit

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
TieArray = npt.NDArray[np.int8]

FREE, APART, NEEDED = 0, 1, 2
"""What ties a node: nothing; it did not merge with its only child; paths beside the branches."""


@njit
def lacks_slot(branch: IntArray, next_slot: IntArray) -> BoolArray:
    """See `Tips.lacks_slot`."""
    is_taken = next_slot < 0
    lacks = np.empty(len(branch), dtype=np.bool_)
    for i in range(len(branch)):
        lacks[i] = is_taken[branch[i]]
        is_taken[branch[i]] = True
    return lacks


@njit
def grow(
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
def tie(
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
def merge(
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
