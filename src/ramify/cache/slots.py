"""The extent allocator: slots come in contiguous ranges, as a filesystem hands out blocks.

Best fit with coalescing on free. A request fails only when fewer slots are free than asked: when no
single free extent holds it, it gets several.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ramify.core.errors import InputError, OutOfSlots, expected_got


class Extent(NamedTuple):
    """A contiguous range of slots, half-open: `begin <= slot < end`."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        """Number of slots in the range."""
        return self.end - self.begin


def num_slots_in(extents: Iterable[Extent]) -> int:
    """Slots held by a list of extents together."""
    total = 0
    for begin, end in extents:
        total += end - begin
    return total


def cut(extents: Sequence[Extent], num_slots: int) -> tuple[list[Extent], list[Extent]]:
    """Split a list of extents after its first `num_slots` slots (all of it when it holds fewer)."""
    if not num_slots:
        return [], list(extents)
    for i, (begin, end) in enumerate(extents):
        if num_slots < end - begin:
            middle = begin + num_slots
            head = [*extents[:i], Extent(begin, middle)] if num_slots else list(extents[:i])
            return head, [Extent(middle, end), *extents[i + 1 :]]
        num_slots -= end - begin
    return list(extents), []


def join(left: Sequence[Extent], right: Sequence[Extent]) -> list[Extent]:
    """Concatenate two lists of extents; where the next range begins at the last end, they fuse."""
    joined = list(left)
    for extent in right:
        if joined and joined[-1].end == extent.begin:
            joined[-1] = Extent(joined[-1].begin, extent.end)
        else:
            joined.append(extent)
    return joined


class SlotAllocator:
    """Free extents of slots `0:num_slots`, found by size and by address.

    Two sorted lists, searched by bisection; a change moves at most one list tail in memory.

    Raises:
        InputError: num_slots is negative.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 0:
            raise InputError(expected_got("num_slots", "an int >= 0", num_slots))
        self.num_slots = num_slots
        self.num_free = 0
        self._begins: list[int] = []
        self._end_of: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []  # (size, begin)
        if num_slots:
            self.free([Extent(0, num_slots)])

    @property
    def largest_free(self) -> int:
        """Size of the largest free extent; 0 when nothing is free."""
        return self._by_size[-1][0] if self._by_size else 0

    def free_extents(self) -> list[Extent]:
        """All free extents by address. No two of them touch."""
        return [Extent(begin, self._end_of[begin]) for begin in self._begins]

    def free_at(self, slot: int) -> int:
        """Size of the free extent that begins exactly at `slot`; 0 when there is none."""
        return self._end_of.get(slot, slot) - slot

    def alloc(self, num_slots: int) -> list[Extent]:
        """Take `num_slots` slots: the smallest free extent that holds them, else several.

        Several extents come largest first, the last of them best-fitting what is still missing;
        equal ones go by address.

        Raises:
            OutOfSlots: fewer slots are free than asked; nothing was taken.
        """
        assert num_slots >= 0, expected_got("num_slots", ">= 0", num_slots)
        if num_slots > self.num_free:
            raise OutOfSlots(num_slots, self.num_free)
        taken: list[Extent] = []
        while num_slots:
            fitting = (min(num_slots, self.largest_free), 0)
            size, begin = self._by_size[bisect_left(self._by_size, fitting)]
            extent = self._take(begin, min(size, num_slots))
            taken.append(extent)
            num_slots -= extent.size
        return taken

    def extend(self, end_slot: int, num_slots: int) -> Extent | None:
        """Take up to `num_slots` slots from `end_slot` on; None when no free extent begins there.

        For a node that grows in place: its last extent ends at `end_slot`.
        """
        size = min(self.free_at(end_slot), num_slots)
        return self._take(end_slot, size) if size > 0 else None

    def free(self, extents: Iterable[Extent]) -> None:
        """Give slots back; neighbouring free extents fuse. A double free is an assertion error."""
        for begin, end in _fused(extents):
            assert end <= self.num_slots, f"no such extent: [{begin}, {end})"
            place = bisect_right(self._begins, begin)
            before = self._begins[place - 1] if place else None
            after = self._begins[place] if place < len(self._begins) else None
            assert before is None or self._end_of[before] <= begin, f"double free at slot {begin}"
            assert after is None or end <= after, f"double free at slot {after}"
            self.num_free += end - begin
            first = begin  # of the free extent that is made
            if before is not None and self._end_of[before] == begin:
                self._drop_size(before, begin)
                first = before
            if after is not None and after == end:
                end = self._end_of.pop(after)
                self._drop_size(after, end)
                if first < begin:
                    del self._begins[place]
                else:
                    self._begins[place] = begin
            elif first == begin:
                self._begins.insert(place, begin)
            self._end_of[first] = end
            insort(self._by_size, (end - first, first))

    def _take(self, begin: int, num_slots: int) -> Extent:
        """Cut `num_slots` slots off the front of the free extent at `begin`."""
        end = self._end_of.pop(begin)
        place = bisect_left(self._begins, begin)
        self._drop_size(begin, end)
        rest = begin + num_slots
        if rest < end:  # what is left keeps its place by address
            self._begins[place] = rest
            insort(self._by_size, (end - rest, rest))
            self._end_of[rest] = end
        else:
            del self._begins[place]
        self.num_free -= num_slots
        return Extent(begin, rest)

    def _drop_size(self, begin: int, end: int) -> None:
        del self._by_size[bisect_left(self._by_size, (end - begin, begin))]


def _fused(extents: Iterable[Extent]) -> Iterator[tuple[int, int]]:
    """The same ranges in order of address, those that touch as one."""
    begin = end = -1
    for first, behind in sorted(extents):
        assert 0 <= first < behind, f"no such extent: [{first}, {behind})"
        if first == end:
            end = behind
            continue
        if begin < end:
            yield begin, end
        begin, end = first, behind
    if begin < end:
        yield begin, end
