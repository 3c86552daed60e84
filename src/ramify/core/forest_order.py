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
Int32Array = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]


# columns of the record of a node; ORDER alone is by place in preorder, not by node
ORDER, START, ROW_LO, OWN_HI, ROW_HI, OWN_SEEN, SEEN, GROWS = range(8)
# lines of the table of rows: the first three by place, the last one by the user's row
ROW, SEES, POSITION, USER_POSITION = range(4)


class ForestOrder(NamedTuple):
    """What follows from the arrays of a `Forest`; see the properties of that class.

    All that is known of a node is a record of 32 bytes: compiled loops come by node after node in
    depth-first order, which is as good as random, and so touch one cache line and not eight.
    """

    nodes: Int32Array  # [N, 8]: its order, start, row_lo, own_hi, row_hi, own seen, seen, grows
    rows: (
        IntArray  # [4, Q]: the user's row, query_len and position of the ordered rows; row_position
    )
    unique_tokens: int  # that some row sees
    path_tokens: int  # over all rows
    per_branch_tokens: int  # over all nodes with rows: the longest path that one of them sees
    own_tokens: int  # over all rows: of the row's own node, whether the row sees them or not
    can_grow: bool  # every row is the last token of a node of its own, with nothing below


def has_cycle(parent: Int32Array) -> bool:
    """Whether following parents from some node never reaches a root (parent -1)."""
    nodes = np.zeros((len(parent), 8), np.int32)
    return _walk(parent, np.zeros(len(parent), np.int64), nodes) < len(parent)


def order_forest(
    parent: Int32Array, length: IntArray, query_node: IntArray, query_len: IntArray
) -> ForestOrder:
    """Everything that is one pass over nodes or rows; the arrays are those of a `Forest`."""
    nodes = np.empty((len(parent), 8), np.int32)
    rows = np.empty((4, len(query_node)), np.int64)
    sums = _order(parent, _plain(length), _plain(query_node), _plain(query_len), nodes, rows)
    return ForestOrder(nodes, rows, *sums)


def first_rows(order: ForestOrder, node: IntArray, offset: IntArray) -> IntArray:
    """First ordered row that sees token `offset` of `node`, own_hi of the node if no own row does.

    Args:
        node, offset: of equal length.
    """
    return _first_rows(order.nodes, order.rows, _plain(node), _plain(offset))


def row_shares(order: ForestOrder, parent: Int32Array, length: IntArray) -> FloatArray:
    """[Q] sum over the tokens a row sees of 1 / (rows that see the token)."""
    return _row_shares(parent, _plain(length), order.nodes, order.rows)


def _plain(values: IntArray) -> IntArray:
    """Contiguous int64: another layout or width would be compiled anew, in the middle of a step."""
    return np.ascontiguousarray(values, np.int64)


@njit
def _order(
    parent: Int32Array,
    length: IntArray,
    query_node: IntArray,
    query_len: IntArray,
    nodes: Int32Array,
    rows: IntArray,
) -> tuple[int, int, int, int, bool]:
    """Fill the tables of a `ForestOrder`; returns the fields behind them."""
    num_nodes, num_rows = len(parent), len(query_node)
    for node in range(num_nodes):
        nodes[node, OWN_HI] = nodes[node, OWN_SEEN] = 0
    own_tokens = 0
    for row in range(num_rows):
        node = query_node[row]
        assert 0 <= node < num_nodes, "a row's node does not exist"
        nodes[node, OWN_HI] += 1
        nodes[node, OWN_SEEN] = max(nodes[node, OWN_SEEN], query_len[row])
        own_tokens += length[node]
    assert _walk(parent, length, nodes) == num_nodes, "parents form a cycle"
    unique, per_branch, num_alone, most_own = _sum_nodes(length, nodes)
    path = _place_rows(query_node, query_len, nodes, rows)
    if most_own > 1:
        _sort_own_rows(query_len, nodes, rows)
    return unique, path, per_branch, own_tokens, num_alone == num_rows


@njit
def _walk(parent: Int32Array, length: IntArray, nodes: Int32Array) -> int:
    """Order, start and rows of the nodes, whose own rows are counted in OWN_HI.

    Returns the nodes that a root leads to: fewer than all if there is a cycle.
    """
    num_nodes = len(parent)
    # first child of each node, at last the first root; the next child of the same parent
    child = np.full(num_nodes + 1, -1, np.int32)
    sibling = np.empty(num_nodes, np.int32)
    for node in range(num_nodes - 1, -1, -1):
        above = parent[node]
        assert -1 <= above < num_nodes, "a parent is no node"
        if above < 0:
            above = num_nodes
        sibling[node] = child[above]
        child[above] = node
    place = row = 0
    node = child[num_nodes]
    while node >= 0:
        above = parent[node]
        nodes[node, START] = nodes[above, START] + length[above] if above >= 0 else 0
        nodes[place, ORDER] = node
        place += 1
        nodes[node, ROW_LO] = row
        row += nodes[node, OWN_HI]
        nodes[node, OWN_HI] = row
        if child[node] >= 0:
            node = child[node]
            continue
        # leave the node, and every ancestor of which it ends the last child
        nodes[node, ROW_HI] = row
        while node >= 0 and sibling[node] < 0:
            node = parent[node]
            if node >= 0:
                nodes[node, ROW_HI] = row
        if node >= 0:
            node = sibling[node]
    return place


@njit
def _sum_nodes(length: IntArray, nodes: Int32Array) -> tuple[int, int, int, int]:
    """Fill SEEN and GROWS; returns sums and the most rows that a node has of its own."""
    unique = per_branch = num_alone = most_own = 0
    for node in range(len(nodes)):
        own_hi, own_seen = nodes[node, OWN_HI], nodes[node, OWN_SEEN]
        own = own_hi - nodes[node, ROW_LO]
        is_last = nodes[node, ROW_HI] == own_hi
        seen = own_seen if is_last else length[node]
        grows = (own > 0) & is_last & (own_seen == length[node])
        nodes[node, SEEN], nodes[node, GROWS] = seen, grows
        unique += seen
        per_branch += (nodes[node, START] + own_seen) * (own > 0)
        # an empty node has no last token, hence no slot that a next one would follow
        num_alone += grows & (own == 1) & (length[node] > 0)
        most_own = max(most_own, own)
    return unique, per_branch, num_alone, most_own


@njit
def _place_rows(
    query_node: IntArray, query_len: IntArray, nodes: Int32Array, rows: IntArray
) -> int:
    """Fill the table of rows, those of one node as they come; returns the tokens of all paths."""
    free = np.empty(len(nodes), np.int64)
    for node in range(len(nodes)):
        free[node] = nodes[node, ROW_LO]
    path = len(query_node)
    for row in range(len(query_node)):
        node = query_node[row]
        place = free[node]
        free[node] += 1
        position = nodes[node, START] + query_len[row] - 1
        rows[ROW, place], rows[SEES, place], rows[POSITION, place] = row, query_len[row], position
        rows[USER_POSITION, row] = position
        path += position
    return path


@njit
def _sort_own_rows(query_len: IntArray, nodes: Int32Array, rows: IntArray) -> None:
    for node in range(len(nodes)):
        lo, hi = nodes[node, ROW_LO], nodes[node, OWN_HI]
        if hi > lo + 1:
            _sort_rows(rows[ROW, lo:hi], query_len)
            for place in range(lo, hi):
                row = rows[ROW, place]
                rows[SEES, place], rows[POSITION, place] = query_len[row], rows[USER_POSITION, row]


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
def _first_rows(nodes: Int32Array, rows: IntArray, node: IntArray, offset: IntArray) -> IntArray:
    assert len(node) == len(offset), "nodes and offsets differ in number"
    first = np.empty(len(node), np.int64)
    last = rows.shape[1] - 1
    for index in range(len(node)):
        assert 0 <= node[index] < len(nodes), "a token's node does not exist"
        lo, hi = nodes[node[index], ROW_LO], nodes[node[index], OWN_HI]
        # as a rule the first own row sees the token, or there is none: a guess that rarely fails
        if last >= 0 and rows[SEES, min(lo, last)] > offset[index]:
            hi = lo
        while lo < hi:
            middle = (lo + hi) // 2
            if rows[SEES, middle] > offset[index]:
                hi = middle
            else:
                lo = middle + 1
        first[index] = lo
    return first


@njit
def _row_shares(
    parent: Int32Array, length: IntArray, nodes: Int32Array, rows: IntArray
) -> FloatArray:
    share = np.zeros(rows.shape[1])
    whole = np.zeros(len(nodes))  # share of a row below the node in it and in its ancestors
    for place in range(len(nodes)):
        node = nodes[place, ORDER]
        above = parent[node]
        sum_so_far, seen = whole[above] if above >= 0 else 0.0, 0
        lo, own_hi, hi = nodes[node, ROW_LO], nodes[node, OWN_HI], nodes[node, ROW_HI]
        for row in range(lo, own_hi):
            # tokens that this row sees and the own row before it does not
            sum_so_far += (rows[SEES, row] - seen) / (hi - row)
            seen = rows[SEES, row]
            share[rows[ROW, row]] = sum_so_far
        if hi > own_hi:
            whole[node] = sum_so_far + (length[node] - seen) / (hi - own_hi)
    return share
