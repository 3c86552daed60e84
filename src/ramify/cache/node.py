"""What the token tree is made of: nodes (spans of tokens) and cursors (live paths).

Only metadata lives here. `pool.py` says who owns slots, `tree.py` what happens to a path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from ramify.cache.slots import Extent, cut, join, num_slots_in

_node_ids = count()
_cursor_ids = count()


class Node:
    """A span of tokens below one parent. Every cursor that uses a node ends at its end or below it.

    Attributes:
        tokens: the span. Never empty, but for the hidden root of a `TokenTree`.
        start: number of tokens before the span on its path.
        extents: the slots of `tokens[:num_slots]`, in order.
        reserved: slots held for growth beyond `num_slots`, behind the last extent if possible.
        lent: slots that hold tokens which may follow the span, while a step tries them.
        num_computed: the first so many tokens have their K and V in their slots.
        ref: number of live paths through the node (they end here or below).
        published: part of the prefix cache; it outlives its paths until it is evicted.
        last_used: logical time of the last path that began or ended here or below.
        cursors: the live paths that end here, in order of arrival.
    """

    __slots__ = (
        "_by_token",
        "children",
        "cursors",
        "extents",
        "id",
        "last_used",
        "lent",
        "num_computed",
        "parent",
        "published",
        "queued",
        "ref",
        "reserved",
        "start",
        "tokens",
    )

    def __init__(self, tokens: list[int], start: int = 0, last_used: int = 0) -> None:
        self.id = next(_node_ids)
        self.parent: Node | None = None
        self.children: list[Node] = []
        self._by_token: dict[int, list[Node]] | None = None  # of the children, once it was asked
        self.tokens = tokens
        self.start = start
        self.extents: list[Extent] = []
        self.reserved: list[Extent] = []
        self.lent: Sequence[Extent] = ()
        self.num_computed = 0
        self.ref = 0
        self.published = False
        self.queued = False  # stands in the eviction queue
        self.last_used = last_used
        self.cursors: dict[Cursor, None] = {}

    @property
    def num_slots(self) -> int:
        """Tokens that have a slot: `tokens[:num_slots]`."""
        return num_slots_in(self.extents)

    @property
    def end(self) -> int:
        """Number of tokens on the path from the root to the end of this node."""
        return self.start + len(self.tokens)

    @property
    def is_computed(self) -> bool:
        """Whether every token has its K and V."""
        return self.num_computed == len(self.tokens)

    @property
    def is_tip(self) -> bool:
        """Whether one path alone uses the node, and nothing hangs below: it may grow in place."""
        return self.ref == 1 and not (self.children or self.published) and self.parent is not None

    @property
    def pins(self) -> int:
        """Number of pins held by the paths that end here."""
        return sum(cursor.pins for cursor in self.cursors)

    def children_by_token(self, token: int) -> list[Node]:
        """Children that begin with `token`, oldest first; live branches may repeat one another."""
        if self._by_token is None:  # few nodes are ever asked, and many come and go
            self._by_token = {}
            for child in self.children:
                self._by_token.setdefault(child.tokens[0], []).append(child)
        return self._by_token.get(token, [])

    def path(self) -> list[Node]:
        """Nodes from the tree's first level down to this one; the hidden root is left out."""
        nodes = list(self.ancestors())
        nodes.reverse()
        return nodes

    def ancestors(self) -> Iterator[Node]:
        """This node and those above it, without the hidden root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def attach(self, child: Node) -> None:
        """Hang `child` below this node, as the youngest."""
        child.parent = self
        self.children.append(child)
        if self._by_token is not None:
            self._by_token.setdefault(child.tokens[0], []).append(child)

    def detach(self, child: Node) -> None:
        """Take `child` off this node."""
        child.parent = None
        self.children.remove(child)
        if self._by_token is not None:
            twins = self._by_token[child.tokens[0]]
            twins.remove(child)
            if not twins:
                del self._by_token[child.tokens[0]]

    def split(self, offset: int) -> Node:
        """Cut the span in two and return the new upper half; this node stays as the lower half.

        Metadata only: slots keep their tokens, and children and cursors stay below. The upper half
        has the same paths running through it. Unused reservations stay with the half that grows
        next.
        """
        assert 0 < offset < len(self.tokens), f"cannot split {len(self.tokens)} tokens at {offset}"
        assert self.parent is not None, "the hidden root cannot be split"
        parent = self.parent
        upper = Node(self.tokens[:offset], self.start, self.last_used)
        upper.ref, upper.published = self.ref, self.published
        upper.num_computed = min(self.num_computed, offset)
        parent.detach(self)
        if self.num_slots < offset:
            upper.reserved, self.reserved = self.reserved, []
        upper.extents, self.extents = cut(self.extents, offset)
        self.num_computed -= upper.num_computed
        self.start += offset
        del self.tokens[:offset]
        parent.attach(upper)
        upper.attach(self)
        return upper

    def can_absorb_child(self) -> bool:
        """Whether the only child can become part of this node by metadata alone.

        No path may end in between, both must be cached or both not, and the slots must touch (a
        child without slots always fits).
        """
        if self.parent is None or len(self.children) != 1 or self.cursors:
            return False
        child = self.children[0]
        if self.published != child.published:
            return False
        if not child.extents:
            return True
        return self.num_slots == len(self.tokens) and self.extents[-1].end == child.extents[0].begin

    def absorb_child(self) -> Node:
        """Take over the only child's tokens, slots, children and cursors; return the emptied child.

        Requires `can_absorb_child()` and that at most one of the two holds a reservation.
        """
        (child,) = self.children
        assert not (self.reserved and child.reserved), "two reservations cannot become one"
        self.tokens += child.tokens
        self.extents = join(self.extents, child.extents)
        self.reserved = self.reserved or child.reserved
        self.num_computed += child.num_computed
        self.last_used = max(self.last_used, child.last_used)
        self.children, self._by_token = child.children, child._by_token
        self.cursors = child.cursors
        for grandchild in self.children:
            grandchild.parent = self
        for cursor in self.cursors:
            cursor.node = self
        child.parent, child.extents, child.reserved = None, [], []
        child.children, child._by_token, child.cursors = [], None, {}
        return child

    def __repr__(self) -> str:
        return (
            f"Node(id={self.id}, start={self.start}, tokens={len(self.tokens)}, "
            f"slots={self.num_slots}, computed={self.num_computed}, ref={self.ref})"
        )


class Cursor:
    """A live path, from a root to the end of `node`; splits and merges keep it valid.

    Made by `TokenTree.open` and `TokenTree.fork`, ended by `close` or `prune`. Do not keep `node`
    across calls that change the tree; ask the cursor again.

    Attributes:
        matched: tokens that were found computed when the path was opened.
        pins: pins held by this cursor; they follow it when the path grows.
        is_open: False once the path was closed.
    """

    __slots__ = ("id", "is_open", "matched", "node", "pins")

    def __init__(self, node: Node) -> None:
        self.id = next(_cursor_ids)
        self.node = node
        self.matched = 0
        self.pins = 0
        self.is_open = True

    @property
    def offset(self) -> int:
        """Tokens of `node` that belong to the path: all of them (0 only at the hidden root)."""
        return len(self.node.tokens)

    @property
    def length(self) -> int:
        """Total tokens on the path."""
        return self.node.end

    def __repr__(self) -> str:
        return f"Cursor(id={self.id}, length={self.length}, node={self.node!r})"
