"""From live paths to the `Forest` of one step: which nodes are read, where, and by which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ramify.cache.node import Node
from ramify.core.forest import Forest


def build_forest(
    rows: Sequence[tuple[Node, int]], visible: Mapping[Node, int] | None = None
) -> Forest:
    """Snapshot the nodes on the rows' paths, parents before children.

    Args:
        rows: [Q] (node, query_len): the row sees all ancestors of `node` and the node's first
            `query_len` tokens. They become the forest's rows in this order.
        visible: tokens of a node that exist in this step (computed + scheduled). A node left out,
            or all of them with None, gets what its rows need: the longest query_len of its own
            rows, or the whole node when a row sits below it.
    Returns:
        A forest whose runs cover the first `length` slots of each node; a node without a visible
        token has no run.

    Every token that a row sees must have a slot. Cost: linear in rows, nodes and their extents.
    """
    index: dict[Node, int] = {}
    parent: list[int] = []
    needed: list[int] = []
    query_node = np.empty(len(rows), dtype=np.int64)
    query_len = np.empty(len(rows), dtype=np.int64)
    for row, (node, num_seen) in enumerate(rows):
        place = index[node] if node in index else _add_path(node, index, parent, needed)
        needed[place] = max(needed[place], num_seen)
        query_node[row] = place
        query_len[row] = num_seen
    if visible is not None:
        for node, place in index.items():
            length = visible.get(node, needed[place])
            assert length >= needed[place], f"{node}: rows see {needed[place]} tokens, not {length}"
            needed[place] = length
    run_indptr, run_begin, run_len = [0], list[int](), list[int]()
    for node, length in zip(index, needed, strict=True):
        if len(node.extents) == 1 and 0 < length <= node.extents[0].size:  # nearly always
            run_begin.append(node.extents[0].begin)
            run_len.append(length)
        else:
            _add_runs(node, length, run_begin, run_len)
        run_indptr.append(len(run_begin))
    return Forest(
        parent=np.array(parent, dtype=np.int32),
        length=np.array(needed, dtype=np.int64),
        run_indptr=np.array(run_indptr, dtype=np.int64),
        run_begin=np.array(run_begin, dtype=np.int64),
        run_len=np.array(run_len, dtype=np.int64),
        query_node=query_node,
        query_len=query_len,
    )


def _add_path(node: Node, index: dict[Node, int], parent: list[int], needed: list[int]) -> int:
    """Index a node and its ancestors, as far as they are new; whole ancestors are needed."""
    fresh: list[Node] = []
    step = node
    while step.parent is not None and step not in index:
        fresh.append(step)
        step = step.parent
    above = index.get(step, -1)
    if above >= 0:
        needed[above] = len(step.tokens)
    for step in reversed(fresh):
        index[step] = len(parent)
        parent.append(above)
        needed.append(0 if step is node else len(step.tokens))
        above = index[step]
    assert fresh, "the node is indexed already, or it is the hidden root"
    return index[node]


def _add_runs(node: Node, length: int, run_begin: list[int], run_len: list[int]) -> None:
    """Append the slots of the node's first `length` tokens as runs."""
    missing = length
    for begin, end in node.extents:
        if missing <= 0:
            break
        run_begin.append(begin)
        run_len.append(min(end - begin, missing))
        missing -= end - begin
    assert missing <= 0, f"{node}: {length} tokens are visible without slots"
