"""Orders, intervals and sums of a forest as plain compiled loops: tens of microseconds a step.

    has_cycle     whether some node's parents never end at a root
    order_forest  preorder of the nodes, order of the rows, intervals of rows, visible lengths
    first_rows    for tokens of nodes: the first ordered row that sees each
    row_shares    for each row: its part of the reads it shares

Nodes may come in any order: a child may precede its parent. Indices are checked where they enter,
because compiled loops do not check what they write to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.core.jit import njit

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class ForestOrder(NamedTuple):
    """What follows from the arrays of a `Forest`; see the properties of that class."""

    node_order: IntArray  # [N]
    node_rank: IntArray  # [N]
    node_start: IntArray  # [N]
    row_lo: IntArray  # [N]
    own_hi: IntArray  # [N]
    row_hi: IntArray  # [N]
    own_visible_len: IntArray  # [N]
    visible_len: IntArray  # [N]
    row_order: IntArray  # [Q]
    row_position: IntArray  # [Q]
    ordered_len: IntArray  # [Q] query_len of the ordered rows
    ordered_position: IntArray  # [Q] row_position of the ordered rows


def has_cycle(parent: npt.NDArray[np.int32]) -> bool:
    """Whether following parents from some node never reaches a root (parent -1)."""
    length, order, rank, start, end = np.zeros((5, len(parent)), np.int64)
    return _walk(parent, length, order, rank, start, end) < len(parent)


def order_forest(
    parent: npt.NDArray[np.int32], length: IntArray, query_node: IntArray, query_len: IntArray
) -> ForestOrder:
    """Everything that is one pass over nodes or rows; the arrays are those of a `Forest`."""
    length, query_node, query_len = _plain(length), _plain(query_node), _plain(query_len)
    nodes = np.empty((8, len(parent)), np.int64)
    rows = np.empty((4, len(query_node)), np.int64)
    order, rank, start, end = nodes[0], nodes[1], nodes[2], np.empty(len(parent), np.int64)
    assert _walk(parent, length, order, rank, start, end) == len(parent), "parents form a cycle"
    _order_rows(rank, end, start, length, query_node, query_len, nodes[3:], rows)
    return ForestOrder(*nodes, *rows)


def first_rows(order: ForestOrder, node: IntArray, offset: IntArray) -> IntArray:
    """First ordered row that sees token `offset` of `node`, own_hi of the node if no own row does.

    Args:
        node, offset: of equal length.
    """
    return _first_rows(order.row_lo, order.own_hi, order.ordered_len, _plain(node), _plain(offset))


def row_shares(order: ForestOrder, parent: npt.NDArray[np.int32], length: IntArray) -> FloatArray:
    """[Q] sum over the tokens a row sees of 1 / (rows that see the token)."""
    return _row_shares(
        order.node_order,
        parent,
        _plain(length),
        order.row_lo,
        order.own_hi,
        order.row_hi,
        order.row_order,
        order.ordered_len,
    )


def _plain(values: IntArray) -> IntArray:
    """Contiguous int64: another layout or width would be compiled anew, in the middle of a step."""
    return np.ascontiguousarray(values, np.int64)


@njit
def _walk(
    parent: npt.NDArray[np.int32],
    length: IntArray,
    order: IntArray,
    rank: IntArray,
    start: IntArray,
    end: IntArray,
) -> int:
    """Nodes in preorder, the place of each, tokens before it, the end of its subtree.

    Returns the nodes that a root leads to: fewer than all if there is a cycle.
    """
    num_nodes = len(parent)
    child = np.full(num_nodes + 1, -1)  # first child of each node, at last the first root
    sibling = np.empty(num_nodes, np.int64)
    for node in range(num_nodes - 1, -1, -1):
        above = parent[node]
        assert -1 <= above < num_nodes, "a parent is no node"
        if above < 0:
            above = num_nodes
        sibling[node] = child[above]
        child[above] = node
    place = 0
    node = child[num_nodes]
    while node >= 0:
        above = parent[node]
        start[node] = start[above] + length[above] if above >= 0 else 0
        order[place], rank[node] = node, place
        place += 1
        if child[node] >= 0:
            node = child[node]
            continue
        # leave the node, and every ancestor of which it ends the last child
        end[node] = place
        while node >= 0 and sibling[node] < 0:
            node = parent[node]
            if node >= 0:
                end[node] = place
        if node >= 0:
            node = sibling[node]
    return place


@njit
def _order_rows(
    rank: IntArray,
    end: IntArray,
    start: IntArray,
    length: IntArray,
    query_node: IntArray,
    query_len: IntArray,
    intervals: IntArray,
    rows: IntArray,
) -> None:
    """Fill the fields of `ForestOrder` from row_lo on."""
    num_nodes, num_rows = len(rank), len(query_node)
    lo, own_hi, hi, own_seen, seen = intervals
    row_order, position, ordered_len, ordered_position = rows
    before = np.zeros(num_nodes + 1, np.int64)  # rows of nodes that precede a place
    own_seen[:] = 0
    for row in range(num_rows):
        node = query_node[row]
        assert 0 <= node < num_nodes, "a row's node does not exist"
        before[rank[node] + 1] += 1
        own_seen[node] = max(own_seen[node], query_len[row])
        position[row] = start[node] + query_len[row] - 1
    for place in range(num_nodes):
        before[place + 1] += before[place]

    free = before.copy()
    for row in range(num_rows):
        place = rank[query_node[row]]
        row_order[free[place]] = row
        free[place] += 1

    for node in range(num_nodes):
        place = rank[node]
        lo[node], own_hi[node], hi[node] = before[place], before[place + 1], before[end[node]]
        if own_hi[node] > lo[node] + 1:
            _sort_rows(row_order[lo[node] : own_hi[node]], query_len)
        seen[node] = length[node] if hi[node] > own_hi[node] else own_seen[node]
    for place in range(num_rows):
        row = row_order[place]
        ordered_len[place], ordered_position[place] = query_len[row], position[row]


@njit
def _sort_rows(rows: IntArray, query_len: IntArray) -> None:
    """Merge sort by query_len, in place and stable. (numba's own takes 3 s to compile.)"""
    count = len(rows)
    is_sorted = True  # as the rows of a prefill chunk are
    for place in range(1, count):
        is_sorted = is_sorted and query_len[rows[place - 1]] <= query_len[rows[place]]
    width = count if is_sorted else 1
    while width < count:
        source = rows.copy()
        for begin in range(0, count, 2 * width):
            left, middle = begin, min(begin + width, count)
            right, end = middle, min(begin + 2 * width, count)
            for place in range(begin, end):
                if left < middle and (
                    right == end or query_len[source[left]] <= query_len[source[right]]
                ):
                    rows[place] = source[left]
                    left += 1
                else:
                    rows[place] = source[right]
                    right += 1
        width *= 2


@njit
def _first_rows(
    row_lo: IntArray, own_hi: IntArray, ordered_len: IntArray, node: IntArray, offset: IntArray
) -> IntArray:
    assert len(node) == len(offset), "nodes and offsets differ in number"
    first = np.empty(len(node), np.int64)
    last = len(ordered_len) - 1
    for index in range(len(node)):
        assert 0 <= node[index] < len(row_lo), "a token's node does not exist"
        lo, hi = row_lo[node[index]], own_hi[node[index]]
        # as a rule the first own row sees the token, or there is none: a guess that rarely fails
        if last >= 0 and ordered_len[min(lo, last)] > offset[index]:
            hi = lo
        while lo < hi:
            middle = (lo + hi) // 2
            if ordered_len[middle] > offset[index]:
                hi = middle
            else:
                lo = middle + 1
        first[index] = lo
    return first


@njit
def _row_shares(
    order: IntArray,
    parent: npt.NDArray[np.int32],
    length: IntArray,
    row_lo: IntArray,
    own_hi: IntArray,
    row_hi: IntArray,
    row_order: IntArray,
    ordered_len: IntArray,
) -> FloatArray:
    share = np.zeros(len(row_order))
    whole = np.zeros(len(order))  # share of a row below the node in it and in its ancestors
    for node in order:
        above = parent[node]
        sum_so_far, seen = whole[above] if above >= 0 else 0.0, 0
        hi = row_hi[node]
        for place in range(row_lo[node], own_hi[node]):
            # tokens that this row sees and the own row before it does not
            sum_so_far += (ordered_len[place] - seen) / (hi - place)
            seen = ordered_len[place]
            share[row_order[place]] = sum_so_far
        if hi > own_hi[node]:
            whole[node] = sum_so_far + (length[node] - seen) / (hi - own_hi[node])
    return share
