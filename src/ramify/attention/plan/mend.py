"""A plan made for one forest taken over by the next, where only tips have grown and slots moved.

Steps that verify drafts of the same shape have the same nodes and rows. What their plans cost is in
choosing tiles and cuts, and these stay good while tips grow by a few tokens: pieces get new slots,
their positions move, and what ends with a node that grew ends later.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ramify.attention.plan.plan import AttentionPlan
from ramify.core.forest import Forest
from ramify.core.forest_order import ORDER
from ramify.core.jit import njit

MOST_GROWN = 16
"""Tokens that a node may grow by before its worker has much more to do than the others."""
SLOT, LENGTH, NODE, OFFSET, POSITION = range(5)  # lines of Parts.columns


def mend_plan(plan: AttentionPlan, before: Forest, forest: Forest) -> AttentionPlan | None:
    """The plan for `forest` with the cuts of a plan made for `before`.

    None where the forests differ by more than slots and by tokens at the ends of nodes, each in
    the node's last run and seen by all rows that saw the node's end before.
    """
    if forest.num_nodes != before.num_nodes or forest.num_rows != before.num_rows:
        return None
    if len(forest.run_begin) != len(before.run_begin):
        return None
    columns = plan.parts.columns.copy()
    row_position = np.empty_like(plan.row_position)
    unique, path, per_branch = _mend(
        before.parent,
        before.length,
        before.run_indptr,
        before.run_len,
        before.query_node,
        before.query_len,
        before.order.nodes,
        forest.parent,
        forest.length,
        forest.run_indptr,
        forest.run_begin,
        forest.run_len,
        forest.query_node,
        forest.query_len,
        plan.row_order,
        plan.row_position,
        columns,
        plan.num_pieces,
        row_position,
    )
    if unique < 0:
        return None
    return replace(
        plan,
        row_position=row_position,
        parts=plan.parts._replace(columns=columns),
        unique_tokens=plan.unique_tokens + unique,
        path_tokens=plan.path_tokens + path,
        per_branch_tokens=plan.per_branch_tokens + per_branch,
    )


@njit
def _mend(  # type: ignore[no-untyped-def]
    parent, length, run_indptr, run_len, query_node, query_len, nodes,
    new_parent, new_length, new_indptr, new_begin, new_run_len, new_node, new_len,
    row_order, row_position, columns, num_pieces, new_position,
):  # fmt: skip
    """Move the pieces, and fill new_position [Q] of the ordered rows.

    Returns how many more tokens are seen, over all rows, and over the longest path of each node
    with rows; the first is -1 where the plan does not fit.
    """
    no = (-1, 0, 0)
    num_nodes, num_rows = len(parent), len(query_node)
    growth = np.empty(num_nodes, dtype=np.int64)
    for node in range(num_nodes):
        grown = new_length[node] - length[node]
        end = run_indptr[node + 1]
        if parent[node] != new_parent[node] or end != new_indptr[node + 1]:
            return no
        if grown < 0 or grown > MOST_GROWN:
            return no
        if grown > 0 and (end == run_indptr[node] or run_len[end - 1] == 0):
            return no  # no piece ends where the new tokens come
        for run in range(run_indptr[node], end):
            if new_run_len[run] != run_len[run] + (grown if run == end - 1 else 0):
                return no
        growth[node] = grown
    for row in range(num_rows):
        node = query_node[row]
        is_last = query_len[row] == length[node]
        if new_node[row] != node or new_len[row] != query_len[row] + is_last * growth[node]:
            return no
    start = np.zeros(num_nodes, dtype=np.int64)  # by how much each node begins later
    for place in range(num_nodes):
        node = nodes[place, ORDER]
        if parent[node] >= 0:
            start[node] = start[parent[node]] + growth[parent[node]]
    longest = np.zeros(num_nodes, dtype=np.int64)
    path = 0
    for place in range(num_rows):
        row = row_order[place]
        node = query_node[row]
        moved = start[node] + new_len[row] - query_len[row]
        new_position[place] = row_position[place] + moved
        longest[node] = moved  # rows of a node come by growing length
        path += moved
    per_branch = 0
    for node in range(num_nodes):
        per_branch += longest[node]
    unique = _move(run_indptr, run_len, length, growth, start, new_begin, columns, num_pieces)
    return unique, path, per_branch


@njit
def _move(  # type: ignore[no-untyped-def]
    run_indptr, run_len, length, growth, start, new_begin, columns, num_pieces
):
    """Move each piece to its new slots; returns the tokens that came in sight."""
    is_counted = np.zeros(len(length), dtype=np.bool_)
    unique = 0
    last, run, before = -1, 0, 0  # the node of the last piece, its run and the tokens before it
    for i in range(num_pieces):
        node, offset = columns[NODE, i], columns[OFFSET, i]
        if node != last or offset < before:
            last, run, before = node, run_indptr[node], 0
        while offset >= before + run_len[run]:
            before += run_len[run]
            run += 1
        columns[SLOT, i] = new_begin[run] + offset - before
        columns[POSITION, i] += start[node]
        if offset + columns[LENGTH, i] == length[node]:
            columns[LENGTH, i] += growth[node]
            unique += 0 if is_counted[node] else growth[node]
            is_counted[node] = True
    return unique
