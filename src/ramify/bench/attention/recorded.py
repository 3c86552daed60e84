"""Forests out of recordings: what is live at one decode iteration, or one draft to verify."""

from __future__ import annotations

from ramify.bench.attention.shapes import TreeShape
from ramify.core.errors import InputError, expected_got
from ramify.search.drafts import RecordedDrafts
from ramify.search.recorded import RecordedTree


def recorded_state(recorded: RecordedTree, iteration: int, name: str = "recorded") -> TreeShape:
    """What is live at one decode iteration: a row per growing node, at the token it computes.

    Raises InputError for an iteration the tree does not have.
    """
    if not 0 <= iteration < recorded.num_iterations:
        allowed = f"a number below {recorded.num_iterations}"
        raise InputError(expected_got("iteration", allowed, iteration))
    live = [
        node
        for node in recorded.nodes
        if node.value and node.start <= iteration <= recorded.cut_after[node.id]
    ]
    index = {node.id: place for place, node in enumerate(live)}
    parent = [-1] * len(live)
    for node in live:
        for child in node.children:
            if child in index:
                parent[index[child]] = index[node.id]
    return TreeShape(
        name=name,
        parent=tuple(parent),
        length=tuple(min(node.end, iteration) - node.start + 1 for node in live),
        query_node=tuple(index[node.id] for node in live if iteration <= node.end),
    )


def draft_state(recorded: RecordedDrafts, context: int, name: str = "draft") -> TreeShape:
    """One draft tree below `context` tokens: every drafted token is a row and sees its ancestors.

    Node 0 is the context. Raises InputError for a context below 1.
    """
    if context < 1:
        raise InputError(expected_got("context", "at least 1 token", context))
    size = len(recorded.parent)
    return TreeShape(
        name=name,
        parent=(-1, *(above + 1 for above in recorded.parent)),
        length=(context, *[1] * size),
        query_node=tuple(range(1, size + 1)),
    )
