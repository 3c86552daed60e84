"""Growing a forest by drafts as one compiled loop; graft.py says what for."""

from __future__ import annotations

import numpy as np

from ramify.core.jit import njit

# lines of JointShape.tokens and of JointShape.lines
DRAFT, DEPTH, SEEN, LINE, PLACE = range(5)
LINE_DRAFT, LINE_LEN, LINE_ABOVE = range(3)


@njit
def graft(  # type: ignore[no-untyped-def]
    parent, length, run_indptr, run_begin, run_len, query_node, query_len,
    count, own, tokens, lines, tip_rows, lent,
):  # fmt: skip
    """The arrays of the grown forest, in the order of a Forest's fields.

    Args:
        count, own: [Q] new tokens of each row's node, and the slots of them all.
        tokens, lines: of a JointShape.
        tip_rows, lent: [D] the row that each draft continues, and [n] slots by place.
    """
    num_nodes, num_rows = len(parent), len(query_node)
    num_lines, num_tokens = lines.shape[1], tokens.shape[1]
    above = np.empty(num_nodes + num_lines, dtype=np.int32)
    sizes = np.empty(num_nodes + num_lines, dtype=np.int64)
    indptr = np.empty(num_nodes + num_lines + 1, dtype=np.int64)
    begins = np.empty(len(run_begin) + len(own) + num_tokens, dtype=np.int64)
    lens = np.empty(len(begins), dtype=np.int64)
    nodes = np.empty(num_rows + num_tokens, dtype=np.int64)
    seen = np.empty(num_rows + num_tokens, dtype=np.int64)
    own_end = np.zeros(num_nodes, dtype=np.int64)  # of each node's new slots
    so_far = 0
    for row in range(num_rows):
        so_far += count[row]
        own_end[query_node[row]] = so_far
        nodes[row], seen[row] = query_node[row], query_len[row] + count[row]
    more = np.zeros(num_nodes, dtype=np.int64)
    for row in range(num_rows):
        more[query_node[row]] += count[row]
    runs = indptr[0] = 0
    for node in range(num_nodes):
        above[node], sizes[node] = parent[node], length[node] + more[node]
        for run in range(run_indptr[node], run_indptr[node + 1]):
            begins[runs], lens[runs] = run_begin[run], run_len[run]
            runs += 1
        first, end = own_end[node] - more[node], own_end[node]
        runs = _append(own, first, end, begins, lens, indptr[node], runs)
        indptr[node + 1] = runs
    at = 0
    for line in range(num_lines):
        node, end = num_nodes + line, at + lines[LINE_LEN, line]
        if lines[LINE_ABOVE, line] < 0:
            above[node] = query_node[tip_rows[lines[LINE_DRAFT, line]]]
        else:
            above[node] = num_nodes + lines[LINE_ABOVE, line]
        sizes[node] = end - at
        runs = _append(lent, at, end, begins, lens, runs, runs)
        indptr[node + 1], at = runs, end
    for token in range(num_tokens):
        nodes[num_rows + token] = num_nodes + tokens[LINE, token]
        seen[num_rows + token] = tokens[SEEN, token]
    return above, sizes, indptr, begins[:runs], lens[:runs], nodes, seen


@njit
def _append(slots, first, end, begins, lens, node_runs, runs):  # type: ignore[no-untyped-def]
    """Append slots [first, end) to the runs of the last node, [node_runs, runs); returns these."""
    for place in range(first, end):
        if runs > node_runs and begins[runs - 1] + lens[runs - 1] == slots[place]:
            lens[runs - 1] += 1
        else:
            begins[runs], lens[runs] = slots[place], 1
            runs += 1
    return runs
