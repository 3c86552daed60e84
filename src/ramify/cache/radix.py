"""The radix side of the tree: prefix matching at token granularity, publishing, deduplication.

Matching sees the prefix cache and the live branches alike. Live branches may repeat one another
(equal samples), so a node can have several children that begin with the same token: the walk
follows all of them and keeps the longest match.
Source: RadixAttention of SGLang, Zheng et al. 2024 (radix tree of cached tokens, LRU leaves).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ramify.cache.node import Node
from ramify.cache.pool import NodePool


def match_computed(root: Node, tokens: Sequence[int]) -> tuple[Node, int]:
    """Find the longest prefix of `tokens` whose K and V are in the cache.

    Returns the node where it ends and how many of that node's tokens it covers (all of `root`'s
    none when nothing matches). Cost: one comparison per matched token of every candidate.
    """
    return _longest_match(root, tokens)


def match_coming(root: Node, tokens: Sequence[int], coming: Collection[Node]) -> int:
    """Length of the longest prefix of `tokens` that is computed or part of a node in `coming`."""
    node, offset = _longest_match(root, tokens, coming)
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


def publish(leaf: Node) -> None:
    """Make the computed nodes from the root down to `leaf` part of the prefix cache."""
    for node in leaf.path():
        if not node.is_computed:
            break
        node.published = True


def deduplicate(nodes: Sequence[Node], pool: NodePool) -> Node:
    """Free what a retired path repeats of the prefix cache beside it.

    Args:
        nodes: the path, root first. Nodes that live paths use stay as they are.
        pool: the pool that owns their slots.
    Returns:
        The node where the path ends now.
    """
    leaf = nodes[-1]
    for node in nodes:
        leaf = node
        while node.ref == 0 and (found := _best_twin(node)) is not None:
            leaf = _replace(node, *found, pool)
            if leaf is not node:
                break
    return leaf


def _longest_match(
    root: Node, tokens: Sequence[int], coming: Collection[Node] = ()
) -> tuple[Node, int]:
    tokens = list(tokens)
    best, best_end = (root, 0), 0
    stack = [root]
    while stack:
        parent = stack.pop()
        begin = parent.end
        if begin == len(tokens):
            continue
        for node in parent.children_by_token(tokens[begin]):
            limit = len(node.tokens) if node in coming else node.num_computed
            shared = shared_prefix(node.tokens[:limit], tokens[begin : begin + limit])
            if begin + shared > best_end:
                best, best_end = (node, shared), begin + shared
            if shared == len(node.tokens):
                stack.append(node)
    return best


def _best_twin(node: Node) -> tuple[Node, int] | None:
    """The cached sibling that shares the longest prefix with `node`, and that prefix's length."""
    assert node.parent is not None, "the hidden root has no siblings"
    best: tuple[Node, int] | None = None
    for sibling in node.parent.children_by_token(node.tokens[0]):
        if sibling is not node and sibling.published:
            shared = shared_prefix(node.tokens, sibling.tokens)
            if best is None or shared > best[1]:
                best = sibling, shared
    return best


def _replace(node: Node, twin: Node, shared: int, pool: NodePool) -> Node:
    """Free the first `shared` tokens of a retired node, which `twin` holds too.

    What is left of the node, or its children, moves below the twin. Returns the node if some of it
    is left, else the twin.
    """
    if shared < len(twin.tokens):
        twin = pool.split(twin, shared)
    is_left = shared < len(node.tokens)
    double = pool.split(node, shared) if is_left else node
    twin.last_used = max(twin.last_used, double.last_used)
    for child in list(double.children):
        double.detach(child)
        twin.attach(child)
    pool.drop_cached(double)
    return node if is_left else twin
