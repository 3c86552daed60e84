"""Who owns which slot: growth reservations, eviction, and the counters that admission looks at.

Every slot is free, reserved by one node for its growth, lent by it to tokens that a step tries, or
owned by it. Under pressure the reservations are taken back first, then the prefix cache is evicted,
least recently used leaf first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.cache.lru import EvictionQueue
from ramify.cache.node import Node
from ramify.cache.slots import Extent, SlotAllocator, cut, join, num_slots_in
from ramify.core.errors import InputError, OutOfSlots, expected_got


class Lines(NamedTuple):
    """Ranges of slots of one length that were claimed: [begin[i], begin[i] + size)."""

    begin: npt.NDArray[np.int64]  # [L]
    size: int  # slots of each

    def extents(self) -> list[Extent]:
        """The same as extents."""
        return [Extent(begin, begin + self.size) for begin in self.begin.tolist()]


class NodePool:
    """The slots of one tree's nodes: allocation, reservations, eviction and their counters.

    Args:
        num_slots: size of the KV pool.
        reserve: slots a growing node reserves ahead at first; it doubles with the node. 0 turns
            reservations off.
        reserve_cap: most slots a node reserves for growth.
    Raises:
        InputError: a negative size.
    """

    def __init__(self, num_slots: int, *, reserve: int, reserve_cap: int) -> None:
        for name, value in (("reserve", reserve), ("reserve_cap", reserve_cap)):
            if value < 0:
                raise InputError(expected_got(name, "an int >= 0", value))
        self.allocator = SlotAllocator(num_slots)
        self.reserve = reserve
        self.reserve_cap = reserve_cap
        self.num_reserved = 0
        self.num_evictable = 0
        self.queue = EvictionQueue()
        self.reserving: dict[Node, None] = {}  # nodes with a reservation, oldest first

    @property
    def num_free(self) -> int:
        """Slots that are neither owned nor reserved."""
        return self.allocator.num_free

    @property
    def available(self) -> int:
        """Slots a request can get: free ones, reservations and what may be evicted."""
        return self.allocator.num_free + self.num_reserved + self.num_evictable

    def ensure(self, node: Node, end: int) -> None:
        """Give `node.tokens[:end]` slots, in place where possible. All or nothing.

        Raises:
            OutOfSlots: even after eviction too few slots would be free; nothing was changed.
        """
        assert node.ref > 0, "only a live node may grow"
        assert end <= len(node.tokens), expected_got("end", f"<= {len(node.tokens)}", end)
        need = end - node.num_slots
        if need <= 0 or self._grow_in_line(node, need):
            return
        if need > self.available:
            raise OutOfSlots(need, self.available)
        self.hand_over(node)
        if node.reserved:
            need -= self._use_reservation(node, need)
        if need:
            if need > self.num_free:
                self._make_room(need)
            owned, spare = cut(self._allocate(node, need), need)
            node.extents = join(node.extents, owned)
            self.set_reservation(node, spare)

    def renew_line(self, node: Node, room: int) -> None:
        """Lay a leaf's uncomputed tokens and `room` reserved slots in one line, where one is free.

        Nothing is evicted for it, nor taken from other reservations; without it all stays as it is.
        """
        need = len(node.tokens) - node.num_computed + room
        if self.allocator.largest_free < need:
            return
        self.truncate(node, node.num_computed)
        line_end = _line_end(node)
        if line_end is not None and self.allocator.free_at(line_end) >= need:
            extent = self.allocator.extend(line_end, need)
            assert extent is not None, "the line is free behind its end"
            taken = [extent]
        else:
            taken = self.allocator.alloc(need)
        owned, spare = cut(taken, need - room)
        node.extents = join(node.extents, owned)
        self.set_reservation(node, spare)

    def lend(self, node: Node, count: int) -> None:
        """Put `count` slots under `node.lent`, of its reservation and behind its line if possible.

        Raises:
            OutOfSlots: even after eviction too few slots would be free; nothing was changed.
        """
        assert node.ref > 0 and not node.lent, "a live node lends once at a time"
        if count > self.available:
            raise OutOfSlots(count, self.available)
        if num_slots_in(node.reserved) < count:
            self.free_reservation(node)
            if count > self.num_free:
                self._make_room(count)
            self.set_reservation(node, self._allocate(node, count))
        node.lent, rest = cut(node.reserved, count)
        self.set_reservation(node, rest)

    def take_back(self, node: Node, places: Sequence[int]) -> None:
        """Make the lent slots at `places` the node's own next ones; the others are reserved again.

        Args:
            places: growing.
        """
        kept: list[Extent] = []
        passed: list[Extent] = []
        rest, begin = node.lent, 0
        for place in places:
            before, rest = cut(rest, place - begin)
            own, rest = cut(rest, 1)
            passed, kept = join(passed, before), join(kept, own)
            begin = place + 1
        node.lent = ()
        node.extents = join(node.extents, kept)
        # what lies behind the last slot comes first, so that the node goes on in one line
        self.set_reservation(node, join(join(rest, node.reserved), passed))

    def claim_lines(self, num_lines: int) -> Lines:
        """See TokenTree.claim_lines."""
        free = self.allocator
        # of one extent, and no more than a quarter of what stays free, as for a node alone
        fair, fitting = (free.num_free - num_lines) // 4, free.largest_free
        size = 1 + min(self.reserve, fair // max(num_lines, 1), fitting // max(num_lines, 1) - 1)
        if size > 1:
            extents = free.alloc(num_lines * size)
            assert len(extents) <= 1, "one extent holds all lines"
        else:
            extents, size = free.alloc(num_lines), 1
        begins = [np.arange(begin, end, size, dtype=np.int64) for begin, end in extents]
        return Lines(np.concatenate([np.empty(0, dtype=np.int64), *begins]), size)

    def lay(self, nodes: Sequence[Node], lacks_slot: Sequence[bool], lines: Lines) -> None:
        """Give the last token of each node its slot; see TokenTree.lay."""
        begins, size = iter(lines.begin.tolist()), lines.size
        for node, is_lacking in zip(nodes, lacks_slot, strict=True):
            if not is_lacking:
                if not self._grow_in_line(node, 1):
                    self.ensure(node, len(node.tokens))
                continue
            assert not node.reserved, f"{node} has room of its own"
            begin = next(begins)
            if node.extents:
                node.extents = join(node.extents, [Extent(begin, begin + 1)])
            else:
                node.extents = [Extent(begin, begin + 1)]
            if size > 1:
                node.reserved = [Extent(begin + 1, begin + size)]
                self.num_reserved += size - 1
                self.reserving[node] = None

    def hand_over(self, child: Node) -> None:
        """Move the parent's unused reservation to a child without slots: one contiguous line."""
        parent = child.parent
        if parent is None or child.extents or child.reserved or not parent.reserved:
            return
        if parent.num_slots == len(parent.tokens):
            child.reserved, parent.reserved = parent.reserved, []
            del self.reserving[parent]
            self.reserving[child] = None

    def set_reservation(self, node: Node, extents: list[Extent]) -> None:
        """Book `extents` as the node's reservation, instead of the present one; frees nothing."""
        if node.reserved:
            self.num_reserved -= num_slots_in(node.reserved)
            if not extents:
                del self.reserving[node]
        elif extents:
            self.reserving[node] = None
        self.num_reserved += num_slots_in(extents)
        node.reserved = extents

    def free_reservation(self, node: Node) -> None:
        """Give the node's unused room back to the allocator."""
        reserved = node.reserved
        self.set_reservation(node, [])
        self.allocator.free(reserved)

    def truncate(self, node: Node, num_slots: int) -> None:
        """Free the node's reservation and its slots beyond the first `num_slots`."""
        assert not node.lent, "lent slots are taken back first"
        reserved = node.reserved
        self.set_reservation(node, [])
        node.extents, tail = cut(node.extents, num_slots)
        self.allocator.free(join(tail, reserved))
        node.num_computed = min(node.num_computed, num_slots)

    def split(self, node: Node, offset: int) -> Node:
        """`Node.split`, with the reservation booked under the half that holds it."""
        upper = node.split(offset)
        if upper.reserved:
            del self.reserving[node]
            self.reserving[upper] = None
        return upper

    def absorb_child(self, node: Node) -> None:
        """`Node.absorb_child`; of two reservations the one behind the last slot stays."""
        child = node.children[0]
        if child.extents or child.reserved:
            self.free_reservation(node)
        reserved = node.reserved or child.reserved
        self.set_reservation(node, [])
        self.set_reservation(child, [])
        self.queue.forget(node.absorb_child())
        self.set_reservation(node, reserved)
        self.queue.offer(node)

    def remove(self, node: Node) -> None:
        """Free all that a childless node holds and take it off its parent."""
        self.allocator.free(self.take_off(node))

    def take_off(self, node: Node) -> list[Extent]:
        """Take a childless node off its parent; returns the slots it held, for the caller to free.

        Slots of many nodes are freed together in fewer steps: neighbours fuse beforehand.
        """
        assert not node.children, "a node with children cannot be removed"
        assert node.parent is not None, "the node is not in the tree"
        held = node.extents
        if node.reserved:
            held += node.reserved
            self.set_reservation(node, [])
        node.extents, node.num_computed = [], 0
        node.parent.detach(node)
        self.queue.forget(node)
        return held

    def retire(self, node: Node) -> None:
        """Count a node as evictable: its last path ended, its content stays in the prefix cache."""
        assert node.ref == 0, "a node with live paths cannot retire"
        self.free_reservation(node)
        self.num_evictable += node.num_slots
        self.queue.offer(node)

    def revive(self, node: Node) -> None:
        """Undo `retire`: a path runs through the node again."""
        self.num_evictable -= node.num_slots

    def evict(self, num_slots: int) -> int:
        """Evict least recently used leaves until `num_slots` more slots are free, or none is left.

        Returns the slots freed, which may be more: a leaf goes as a whole.
        """
        freed = 0
        while freed < num_slots and (leaf := self.queue.pop()) is not None:
            parent = leaf.parent
            assert parent is not None, "the hidden root is never queued"
            freed += self.drop_cached(leaf)
            self.queue.offer(parent)
        return freed

    def evict_subtree(self, node: Node) -> None:
        """Evict a cached node and everything below it."""
        subtree = [node]
        for step in subtree:
            subtree.extend(step.children)
        for step in reversed(subtree):
            self.drop_cached(step)

    def drop_cached(self, node: Node) -> int:
        """Free a childless node of the prefix cache; returns its slots."""
        num_slots = node.num_slots
        self.num_evictable -= num_slots
        self.remove(node)
        return num_slots

    def _grow_in_line(self, node: Node, need: int) -> bool:
        """Grow by reserved slots in line with those before, as decoding does; not by the last."""
        if not node.reserved:
            return False
        begin, end = node.reserved[0]
        middle = begin + need
        if end <= middle:
            return False
        if not node.extents:
            node.extents = [Extent(begin, middle)]
        elif node.extents[-1].end == begin:
            node.extents[-1] = Extent(node.extents[-1].begin, middle)
        else:
            return False
        node.reserved[0] = Extent(middle, end)
        self.num_reserved -= need
        return True

    def _use_reservation(self, node: Node, need: int) -> int:
        """Turn up to `need` reserved slots into slots of the node; returns how many."""
        used, rest = cut(node.reserved, need)
        self.set_reservation(node, rest)
        node.extents = join(node.extents, used)
        return num_slots_in(used)

    def _make_room(self, need: int) -> None:
        """Free slots until `need` are free: oldest reservations first, then the prefix cache."""
        while self.num_free < need and self.reserving:
            self.free_reservation(next(iter(self.reserving)))
        if self.num_free < need:
            self.evict(need - self.num_free)
        assert self.num_free >= need, "the counters promised slots that are not there"

    def _allocate(self, node: Node, need: int) -> list[Extent]:
        """Take `need` slots, behind the line if possible, and room ahead that costs no run."""
        ahead = self._room_ahead(node, need)
        line_end = _line_end(node)
        # a node without slots moves behind its parent only as a whole: half of it would cost a run
        least = 1 if node.extents else need
        taken: list[Extent] = []
        if line_end is not None and self.allocator.free_at(line_end) >= least:
            extent = self.allocator.extend(line_end, need + ahead)
            taken += [extent] if extent else []
        missing = need - num_slots_in(taken)
        if missing > 0:
            fitting = max(self.allocator.largest_free - missing, 0)
            taken += self.allocator.alloc(missing + min(ahead, fitting))
        return taken

    def _room_ahead(self, node: Node, need: int) -> int:
        """Slots worth reserving: for known tokens still to come, and for a leaf as many as it has.

        Never more than a quarter of what stays free, so that reservations fade as the pool fills.
        """
        if not self.reserve:
            return 0
        num_slots = node.num_slots + need
        ahead = max(len(node.tokens) - num_slots, 0)
        if not node.children:
            ahead += min(self.reserve_cap, max(self.reserve, num_slots))
        return min(ahead, (self.num_free - need) // 4)


def _line_end(node: Node) -> int | None:
    """The slot behind the node's last one, or behind its parent's when it has none itself."""
    if node.extents:
        return node.extents[-1].end
    parent = node.parent
    if parent is not None and parent.extents and parent.num_slots == len(parent.tokens):
        return parent.extents[-1].end
    return None
