"""The token tree: live branches and the prefix cache in one structure.

A hidden root holds every tree. A live path is a `Cursor`, which always ends at the end of a node:
to fork inside a node is to split it, metadata only. When paths end, what remains is merged again.
A node with no live path is part of the prefix cache; pruned branches never get there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from ramify.cache.integrity import check_tree
from ramify.cache.node import Cursor, Node
from ramify.cache.pool import Lines, NodePool
from ramify.cache.radix import deduplicate, match_coming, match_computed, publish
from ramify.cache.slots import Extent, cut
from ramify.core.errors import InputError, expected_got


class TokenTree:
    """Every token whose K and V the pool holds, and every live path over them.

    Args:
        num_slots: slots of the KV pool, one token each.
        reserve: slots a growing node reserves at first, doubling with the node; 0: none.
        reserve_cap: most slots a node reserves for growth.
    Raises:
        InputError: a negative size.

    Calls that change the tree (`open`, `fork`, `append`, `close`, `prune`, `unpin`) may split and
    merge nodes: hold on to cursors, not to nodes. Not thread-safe.
    Source: extents after filesystems; prefix cache after RadixAttention, Zheng et al. 2024.
    """

    def __init__(self, num_slots: int, *, reserve: int = 64, reserve_cap: int = 1024) -> None:
        self.pool = NodePool(num_slots, reserve=reserve, reserve_cap=reserve_cap)
        self.root = Node([])
        self.cursors: dict[Cursor, None] = {}
        self._clock = 0

    # --- counters ------------------------------------------------------------------------------

    @property
    def num_slots(self) -> int:
        """Size of the pool."""
        return self.pool.allocator.num_slots

    @property
    def num_free(self) -> int:
        """Slots neither owned nor reserved."""
        return self.pool.num_free

    @property
    def num_reserved(self) -> int:
        """Slots held for growth; they are taken back under pressure."""
        return self.pool.num_reserved

    @property
    def evictable(self) -> int:
        """Slots of the prefix cache that no live path uses and no pin protects."""
        return self.pool.num_evictable

    @property
    def available(self) -> int:
        """Slots that requests can still get: free + reserved + evictable. O(1)."""
        return self.pool.available

    @property
    def clock(self) -> int:
        """Counts paths that began or ended."""
        return self._clock

    # --- paths ---------------------------------------------------------------------------------

    def open(self, tokens: Sequence[int], *, reuse: bool = True) -> Cursor:
        """Begin a live path of `tokens`, on top of the longest computed prefix in the tree.

        `cursor.matched` tells that prefix's length, which may be all of `tokens`; open
        `tokens[:-1]` and append the last token to be sure that one is left to compute. No slot is
        allocated here. With `reuse=False` the path is private: nothing is matched.
        """
        node, offset = match_computed(self.root, tokens) if reuse else (self.root, 0)
        if offset < len(node.tokens):
            node = self.pool.split(node, offset)
        (cursor,) = self._enter([node])
        cursor.matched = cursor.length
        self.append(cursor, tokens[cursor.matched :])
        return cursor

    def coming(self, cursors: Iterable[Cursor]) -> set[Node]:
        """Nodes of paths that somebody computes now, as far as they are not computed yet."""
        nodes: set[Node] = set()
        for cursor in cursors:
            for node in cursor.node.ancestors():
                if node.is_computed or node in nodes:
                    break
                nodes.add(node)
        return nodes

    def in_flight_match(self, tokens: Sequence[int], coming: Collection[Node]) -> int:
        """Length of the longest prefix of `tokens` in the tree, counting nodes that are coming.

        When it exceeds what `open` would match, a live path is about to compute the difference.
        """
        return match_coming(self.root, tokens, coming)

    def computed_match(self, tokens: Sequence[int]) -> int:
        """Length of the prefix of `tokens` that `open` would find computed. Changes nothing."""
        node, offset = match_computed(self.root, tokens)
        return node.start + offset

    def cached_match(self, tokens: Sequence[int]) -> tuple[int, int]:
        """`computed_match`, and how many of these tokens no live path uses: they can be evicted."""
        node, offset = match_computed(self.root, tokens)
        used = (above for above in node.ancestors() if above is not node)
        idle = sum(len(above.tokens) for above in used if above.ref == 0)
        if node.ref == 0 and node is not self.root:
            idle += offset
        return node.start + offset, idle

    def private_slots(self, *cursors: Cursor) -> int:
        """Slots that only these paths use and `drop` would free; reservations are left out."""
        used: Counter[Node] = Counter()
        for cursor in cursors:
            if not cursor.pins:
                used.update(cursor.node.ancestors())
        return sum(node.num_slots for node, paths in used.items() if paths == node.ref)

    def fork(self, cursor: Cursor, at: int | None = None) -> Cursor:
        """A second path over the first `at` tokens of `cursor`'s (default: all). Metadata only.

        Raises:
            InputError: `at` is negative or beyond the path's length.
        """
        self._check_open(cursor)
        at = cursor.length if at is None else at
        if not 0 <= at <= cursor.length:
            raise InputError(expected_got("at", f"an int in [0, {cursor.length}]", at))
        node = cursor.node
        while node.start >= at and node.parent is not None:
            node = node.parent
        if at < node.end:
            node = self.pool.split(node, at - node.start)
        (twin,) = self._enter([node])
        twin.matched = min(cursor.matched, at)
        return twin

    def fork_all(self, cursors: Iterable[Cursor]) -> list[Cursor]:
        """What `fork` of each of these paths makes, a path as often as it is named."""
        cursors = list(cursors)
        for cursor in dict.fromkeys(cursors):
            self._check_open(cursor)
        twins = self._enter([cursor.node for cursor in cursors])
        for twin, cursor in zip(twins, cursors, strict=True):
            twin.matched = cursor.matched
        return twins

    def append(self, cursor: Cursor, token_ids: Iterable[int]) -> None:
        """Grow the path by tokens that are yet to be computed.

        A node used by this path alone grows in place; otherwise a child begins, and the first child
        takes over its parent's reservation.
        """
        self._check_open(cursor)
        tokens = list(token_ids)
        if not tokens:
            return
        if cursor.node.is_tip:
            cursor.node.tokens += tokens
        else:
            self._branch_off(cursor, tokens)

    def append_all(self, cursors: Iterable[Cursor], tokens: Iterable[int]) -> None:
        """`append` of a token to each of these paths."""
        for cursor, token in zip(cursors, tokens, strict=True):
            self._check_open(cursor)
            if cursor.node.is_tip:
                cursor.node.tokens.append(token)
            else:
                self._branch_off(cursor, [token])

    def path(self, cursor: Cursor) -> list[Node]:
        """Nodes of the path from its root to its leaf."""
        return cursor.node.path()

    def pending(self, *cursors: Cursor) -> int:
        """Tokens on the paths that are not computed, each counted once."""
        missing = 0
        seen: set[Node] = set()
        for cursor in cursors:
            for node in cursor.node.ancestors():
                if node in seen:
                    break
                seen.add(node)
                missing += len(node.tokens) - node.num_computed
                if node.num_computed:  # everything above is computed
                    break
        return missing

    # --- slots ---------------------------------------------------------------------------------

    def reserve_slots(self, node: Node, end: int) -> None:
        """Make sure that `node.tokens[:end]` have slots. All or nothing.

        Grows in place where it can and, while slots are plentiful, reserves room ahead. Under
        pressure it takes back reservations, then evicts from the prefix cache.

        Raises:
            OutOfSlots: more slots are needed than `available`; nothing was changed.
        """
        self.pool.ensure(node, end)

    def slots_of(self, node: Node, begin: int = 0, end: int | None = None) -> npt.NDArray[np.int64]:
        """[end - begin] int64, the slots of `node.tokens[begin:end]` (default: all with slots)."""
        end = node.num_slots if end is None else end
        assert 0 <= begin <= end <= node.num_slots, f"no slots for [{begin}, {end}) of {node}"
        _, extents = cut(cut(node.extents, end)[0], begin)
        if not extents:
            return np.empty(0, dtype=np.int64)
        return np.concatenate([np.arange(b, e, dtype=np.int64) for b, e in extents])

    def slot_of(self, node: Node, offset: int) -> int:
        """The slot of `node.tokens[offset]`."""
        for begin, end in node.extents:
            if offset < end - begin:
                return begin + offset
            offset -= end - begin
        raise AssertionError(f"no slot for a token of {node}")

    def room_ahead(self, cursor: Cursor) -> int:
        """Slots reserved right behind the last slot of a path that grows in place; else 0."""
        node = cursor.node
        if not node.is_tip or not (node.extents and node.reserved):
            return 0
        begin, end = node.reserved[0]
        return end - begin if begin == node.extents[-1].end else 0

    def claim_lines(self, num_lines: int) -> Lines:
        """Lines of slots that nobody owns until `lay`: a slot each, and room ahead in plenty.

        They are free slots only: nothing is evicted, and no reservation taken back.

        Raises:
            OutOfSlots: fewer slots are free than lines are asked for; nothing was taken.
        """
        return self.pool.claim_lines(num_lines)

    def return_lines(self, lines: Lines) -> None:
        """Free lines that were claimed and not laid."""
        self.pool.allocator.free(lines.extents())

    def lay(
        self, cursors: Iterable[Cursor], lacks_slot: npt.NDArray[np.bool_], lines: Lines
    ) -> None:
        """Give the last token of each path its slot and note it as computed; the rest is already.

        Args:
            lacks_slot: [n] paths whose slot is the begin of a claimed line, in this order, and
                whose room ahead is the rest of it. The others take the first slot reserved for
                them, as `reserve_slots` does.
        """
        nodes = [cursor.node for cursor in cursors]
        for node in nodes:
            assert len(node.tokens) - node.num_computed == 1, f"{node}: not one token to compute"
        self.pool.lay(nodes, lacks_slot.tolist(), lines)
        for node in nodes:
            node.num_computed += 1

    def make_room_ahead(self, cursor: Cursor, num_slots: int) -> None:
        """Move a path's uncomputed tokens to where `num_slots` slots follow in a row, if need be.

        Many branches that grow together then run out of room together. Where no such line is free
        all stays as it is.
        """
        if cursor.node.is_tip and self.room_ahead(cursor) < num_slots // 2:
            self.pool.renew_line(cursor.node, num_slots)

    def lend_slots(self, cursor: Cursor, count: int) -> npt.NDArray[np.int64]:
        """[count] int64, slots for tokens that a step tries behind a path's end; see `take_back`.

        They follow the path's last slot where they can. Requires that the path alone uses its
        node (`Node.is_tip`), all of whose tokens have slots. Raises OutOfSlots; nothing was
        changed then.
        """
        node = cursor.node
        assert node.is_tip and node.num_slots == len(node.tokens)
        self.pool.lend(node, count)
        return np.concatenate([np.arange(b, e, dtype=np.int64) for b, e in node.lent])

    def take_back(
        self, cursor: Cursor, tokens: Sequence[int] = (), places: Sequence[int] = ()
    ) -> None:
        """End a loan; the path grows by what was tried and holds, which is computed.

        Args:
            tokens: what the path grows by.
            places: [tokens] growing, of their slots among those lent.
        """
        node = cursor.node
        assert len(tokens) == len(places) and node.is_computed >= bool(tokens)
        self.pool.take_back(node, places)
        node.tokens += tokens
        node.num_computed += len(tokens)

    def mark_computed(self, node: Node, end: int) -> None:
        """Note that `node.tokens[:end]` have K and V in their slots. Parents before children."""
        assert node.num_computed <= end <= node.num_slots, f"cannot mark [:{end}) of {node}"
        assert node.parent is not None, "the hidden root has no tokens"
        assert end == 0 or node.parent.is_computed, f"{node} is computed before its parent"
        node.num_computed = end

    def drop(self, *cursors: Cursor) -> int:
        """Preempt paths: free the slots that they alone use; tokens stay, to be recomputed.

        Together they also give up nodes that only they share. A pinned path and a node with another
        path through it stay as they are; cached nodes below a node that goes are evicted with it.
        Returns the slots freed.
        """
        before = self.num_free
        used: Counter[Node] = Counter()
        for cursor in dict.fromkeys(cursors):
            self._check_open(cursor)
            if not cursor.pins:
                used.update(cursor.node.ancestors())
        # children start after their parents, so they come first
        for node in sorted(used, key=lambda n: n.start, reverse=True):
            if used[node] < node.ref or any(c.ref and c.extents for c in node.children):
                continue
            for child in [c for c in node.children if not c.ref]:
                self.pool.evict_subtree(child)
            self.pool.truncate(node, 0)
            node.published = False
        return self.num_free - before

    def evict(self, num_slots: int) -> int:
        """Evict least recently used leaves until `num_slots` more slots are free or none is left.

        Returns the slots freed; a leaf goes as a whole, so they may be more.
        """
        return self.pool.evict(num_slots)

    # --- pins ----------------------------------------------------------------------------------

    def pin(self, cursor: Cursor) -> None:
        """Protect the path's K and V from `drop` and eviction until as many `unpin` calls follow.

        A pin outlives `close(keep=True)`: the closed path still counts as a reference until it is
        unpinned.
        """
        self._check_open(cursor)
        cursor.pins += 1

    def unpin(self, cursor: Cursor) -> None:
        """Take back one pin. The last one of a closed path lets it become evictable.

        Raises:
            InputError: the cursor holds no pin.
        """
        if not cursor.pins:
            raise InputError(expected_got("cursor.pins", ">= 1", cursor.pins))
        cursor.pins -= 1
        if not cursor.is_open and not cursor.pins:
            self._retire_path(cursor)

    # --- the end of a path ---------------------------------------------------------------------

    def close(self, cursor: Cursor, *, keep: bool) -> int:
        """End a live path and return the slots freed.

        keep=True publishes its computed tokens as prefix cache (uncomputed tails go, and where an
        equal sequence is cached already, the duplicate's slots are freed). A pinned path is
        published but stays referenced until `unpin`. keep=False is `prune` of one path.

        Raises:
            InputError: keep=False on a pinned path.
        """
        if not keep:
            return self.prune([cursor])
        self._check_open(cursor)
        cursor.is_open = False
        if cursor.pins:
            publish(cursor.node)
            return 0
        return self._retire_path(cursor)

    def prune(self, cursors: Iterable[Cursor]) -> int:
        """End live paths and free at once all that no other path and no published prefix uses.

        Returns the slots freed.

        Raises:
            InputError: one of the paths is pinned; nothing was changed.
        """
        before = self.num_free
        doomed = list(dict.fromkeys(cursors))
        for cursor in doomed:
            self._check_open(cursor)
            if cursor.pins:
                raise InputError(expected_got("cursor.pins", "0; unpin it first", cursor.pins))
        for cursor in doomed:
            cursor.is_open = False
        freed: list[Extent] = []
        survivors = {cursor.node: None for cursor in doomed}  # the lowest of each path
        for node in self._leave(doomed):
            if node.ref:
                continue
            if node.published:
                self.pool.retire(node)
                continue
            del survivors[node]
            assert node.parent is not None, "the hidden root is on no path"
            survivors[node.parent] = None
            freed += self.pool.take_off(node)
        self.pool.allocator.free(freed)
        for node in survivors:
            self._merge_down(node)
        return self.num_free - before

    def check_integrity(self) -> None:
        """Raise IntegrityError if an invariant of the tree, its slots or counters is broken."""
        check_tree(self.root, self.cursors, self.pool)

    def _check_open(self, cursor: Cursor) -> None:
        assert cursor.is_open and cursor in self.cursors, (
            f"{cursor} is not an open path of this tree"
        )

    def _enter(self, ends: Sequence[Node]) -> list[Cursor]:
        """Register new paths that end at these nodes."""
        self._clock += len(ends)
        cursors = [Cursor(node) for node in ends]
        for cursor in cursors:
            self.cursors[cursor] = None
            cursor.node.cursors[cursor] = None
        self._count_paths(ends, 1)
        return cursors

    def _leave(self, cursors: Sequence[Cursor]) -> list[Node]:
        """Unregister paths; returns their nodes, leaves first, for the caller to keep or free."""
        self._clock += len(cursors)
        for cursor in cursors:
            del self.cursors[cursor]
            del cursor.node.cursors[cursor]
        return self._count_paths([cursor.node for cursor in cursors], -1)

    def _count_paths(self, ends: Iterable[Node], change: int) -> list[Node]:
        """Note that a path begins (1) or ended (-1) at each of these; returns all nodes above.

        Children come first; the hidden root is not counted.
        """
        count: dict[Node, int] = {}
        for end in ends:
            node = end
            while node.parent is not None and node not in count:
                count[node] = 0
                node = node.parent
            if end.parent is not None:
                count[end] += change
        # children start after their parents
        nodes = sorted(count, key=attrgetter("start"), reverse=True)
        for node in nodes:
            num_paths, above = count[node], node.parent
            if above in count:
                count[above] += num_paths
            if node.ref == 0:
                self.pool.revive(node)
            node.ref += num_paths
            node.last_used = self._clock
        return nodes

    def _branch_off(self, cursor: Cursor, tokens: list[int]) -> None:
        """Let a path end at a new child of its node."""
        node = cursor.node
        child = Node(tokens, node.end, self._clock)
        is_first = not node.children
        node.attach(child)
        child.ref = 1
        del node.cursors[cursor]
        child.cursors[cursor] = None
        cursor.node = child
        if is_first:
            self.pool.hand_over(child)

    def _retire_path(self, cursor: Cursor) -> int:
        """End a path and keep what is computed of it as prefix cache; returns the slots freed."""
        before = self.num_free
        nodes = self._leave([cursor])
        while nodes and nodes[0].ref == 0 and not nodes[0].is_computed:
            node = nodes[0]
            if node.num_computed:
                self.pool.truncate(node, node.num_computed)
                del node.tokens[node.num_computed :]
                break
            self.pool.remove(node)
            del nodes[0]
        if nodes:
            publish(nodes[0])
            for node in nodes:
                if node.ref == 0:
                    self.pool.retire(node)
            leaf = deduplicate(nodes[::-1], self.pool)
            for node in leaf.path():
                self._merge_down(node)
        return self.num_free - before

    def _merge_down(self, node: Node) -> None:
        """Fuse a node with its only child, and again, as long as that is metadata only."""
        while node.can_absorb_child():
            self.pool.absorb_child(node)
