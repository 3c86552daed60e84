"""Which cached leaf goes next: a queue in order of last use.

Last use only moves forward: an entry older than its node is put right when it comes up.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ramify.cache.node import Node


class EvictionQueue:
    """Evictable leaves, least recently used first; O(log n) a change.

    Every evictable leaf has exactly one entry. Entries of nodes that came back to life or were
    removed are dropped when they come up, or all together once they outnumber the others.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Node]] = []
        self._num_forgotten = 0

    def nodes(self) -> list[Node]:
        """All nodes with an entry, stale ones included, in no order."""
        return [node for _, _, node in self._heap]

    def offer(self, node: Node) -> None:
        """Queue the node if it is an evictable leaf and not queued yet."""
        if is_evictable_leaf(node) and not node.queued:
            node.queued = True
            heappush(self._heap, (node.last_used, node.id, node))

    def forget(self, node: Node) -> None:
        """Note that a node left the tree, so that its entry does not outlive it for long."""
        if not node.queued:
            return
        self._num_forgotten += 1
        if self._num_forgotten > len(self._heap) // 2 + 16:
            self._heap = [entry for entry in self._heap if entry[2].parent is not None]
            heapify(self._heap)
            self._num_forgotten = 0

    def pop(self) -> Node | None:
        """Take the least recently used evictable leaf; None when there is none."""
        while self._heap:
            queued_at, _, node = heappop(self._heap)
            node.queued = False
            if node.parent is None:
                self._num_forgotten -= 1
            elif is_evictable_leaf(node):
                if queued_at == node.last_used:
                    return node
                self.offer(node)
        return None


def is_evictable_leaf(node: Node) -> bool:
    """Whether a node may be evicted now: cached, childless, and no live path runs through it."""
    return node.parent is not None and node.ref == 0 and not node.children
