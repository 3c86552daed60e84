"""Prefix matching at token granularity, over the prefix cache and the live branches alike.

Live branches may repeat one another (equal samples), so a node can have several children that begin
with the same token: the walk follows all of them and keeps the longest match.
Source: SGLang's RadixAttention, Zheng et al. 2024 (radix tree over cached tokens, LRU leaves first).
"""

from __future__ import annotations

from collections.abc import Sequence

from ramify.cache.node import Node


def match_computed(root: Node, tokens: Sequence[int]) -> tuple[Node, int]:
    """Find the longest prefix of `tokens` whose K and V are in the cache.

    Returns the node where it ends and how many of that node's tokens it covers (all of `root`'s none
    when nothing matches). Cost: one comparison per matched token of every candidate.
    """
    return _longest_match(root, tokens, computed_only=True)


def match_known(root: Node, tokens: Sequence[int]) -> int:
    """Length of the longest prefix of `tokens` in the tree, tokens still to be computed included."""
    node, offset = _longest_match(root, tokens, computed_only=False)
    return node.start + offset


def shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of leading tokens that two sequences share."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:  # left[:low] is shared, left[:high] is not
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def best_twin(node: Node) -> tuple[Node, int] | None:
    """The cached sibling that shares the longest prefix with `node`, and that prefix's length."""
    assert node.parent is not None, "the hidden root has no siblings"
    best: tuple[Node, int] | None = None
    for sibling in node.parent.children_by_token(node.tokens[0]):
        if sibling is not node and sibling.published:
            shared = shared_prefix(node.tokens, sibling.tokens)
            if best is None or shared > best[1]:
                best = sibling, shared
    return best


def _longest_match(root: Node, tokens: Sequence[int], *, computed_only: bool) -> tuple[Node, int]:
    tokens = list(tokens)
    best, best_end = (root, 0), 0
    stack = [root]
    while stack:
        parent = stack.pop()
        begin = parent.end
        if begin == len(tokens):
            continue
        for node in parent.children_by_token(tokens[begin]):
            limit = node.num_computed if computed_only else len(node.tokens)
            shared = shared_prefix(node.tokens[:limit], tokens[begin : begin + limit])
            if begin + shared > best_end:
                best, best_end = (node, shared), begin + shared
            if shared == len(node.tokens):
                stack.append(node)
    return best
