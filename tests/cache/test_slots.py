"""The extent allocator: best fit, coalescing, growth in place, and a pool in shreds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.cache.slots import Extent, SlotAllocator, cut, join, num_slots_in
from ramify.core.errors import InputError, OutOfSlots


def pool_with_holes(*holes: int) -> SlotAllocator:
    """A full pool but for free extents of the given sizes, one used slot between neighbours."""
    allocator = SlotAllocator(sum(holes) + len(holes))
    allocator.alloc(allocator.num_slots)
    begin = 0
    for size in holes:
        allocator.free([Extent(begin, begin + size)])
        begin += size + 1
    return allocator


def test_takes_the_smallest_extent_that_fits():
    allocator = pool_with_holes(8, 3, 5, 4)
    assert allocator.alloc(4) == [Extent(19, 23)]
    assert allocator.alloc(4) == [Extent(13, 17)]
    assert allocator.free_extents() == [Extent(0, 8), Extent(9, 12), Extent(17, 18)]
    assert allocator.largest_free == 8


def test_equal_extents_go_by_address():
    assert pool_with_holes(2, 5, 5).alloc(5) == [Extent(3, 8)]


def test_several_extents_when_none_fits_largest_first():
    allocator = pool_with_holes(2, 6, 3, 4)
    taken = allocator.alloc(12)
    assert [extent.size for extent in taken] == [6, 4, 2]
    assert allocator.num_free == 3


def test_the_rest_of_a_split_request_is_best_fitted():
    # 7 = 6 + 1: the missing slot comes from the smallest hole, not from the next largest
    assert pool_with_holes(2, 6, 4).alloc(7) == [Extent(3, 9), Extent(0, 1)]


@pytest.mark.parametrize("num_slots", [1, 7, 32])
def test_checkerboard_serves_everything_that_fits(num_slots):
    allocator = pool_with_holes(*[1] * 32)
    taken = allocator.alloc(num_slots)
    assert num_slots_in(taken) == num_slots
    assert len({extent.begin for extent in taken}) == num_slots
    assert allocator.num_free == 32 - num_slots


def test_fails_only_beyond_the_free_slots_and_takes_nothing():
    allocator = pool_with_holes(*[1] * 8)
    with pytest.raises(OutOfSlots) as caught:
        allocator.alloc(9)
    assert (caught.value.needed, caught.value.available) == (9, 8)
    assert allocator.num_free == 8


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_free_coalesces_on_both_sides(order):
    allocator = SlotAllocator(30)
    allocator.alloc(30)
    thirds = [Extent(0, 10), Extent(10, 20), Extent(20, 30)]
    for index in order:
        allocator.free([thirds[index]])
    assert allocator.free_extents() == [Extent(0, 30)]
    assert allocator.alloc(30) == [Extent(0, 30)]


@pytest.mark.parametrize("again", [(0, 4), (2, 3), (3, 6), (0, 10)], ids=str)
def test_double_free_asserts(again):
    allocator = SlotAllocator(10)
    allocator.alloc(10)
    allocator.free([Extent(0, 4), Extent(8, 10)])
    with pytest.raises(AssertionError, match="double free"):
        allocator.free([Extent(*again)])


def test_free_outside_the_pool_asserts():
    with pytest.raises(AssertionError, match="no such extent"):
        SlotAllocator(4).free([Extent(3, 5)])


def test_extend_takes_up_to_what_is_free_behind():
    allocator = SlotAllocator(10)
    assert allocator.alloc(4) == [Extent(0, 4)]
    assert allocator.extend(4, 3) == Extent(4, 7)
    assert allocator.extend(7, 99) == Extent(7, 10)
    assert allocator.extend(10, 1) is None
    assert allocator.extend(4, 1) is None


def test_negative_size_is_refused():
    with pytest.raises(InputError, match="num_slots: expected an int >= 0, got -1"):
        SlotAllocator(-1)


def test_empty_pool():
    allocator = SlotAllocator(0)
    assert allocator.alloc(0) == [] and allocator.largest_free == 0
    with pytest.raises(OutOfSlots):
        allocator.alloc(1)


def test_cut_and_join_are_inverse_at_every_place():
    extents = [Extent(4, 7), Extent(20, 21), Extent(0, 3)]
    for place in range(8):
        head, tail = cut(extents, place)
        assert (num_slots_in(head), num_slots_in(tail)) == (place, 7 - place)
        assert join(head, tail) == extents


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=60))
def test_agrees_with_a_set_of_free_slots(steps):
    """Random alloc, extend and free calls; the free set and its maximal ranges must match."""
    allocator, free, held = SlotAllocator(48), set(range(48)), []
    for kind, number in steps:
        if kind == 0 and number > len(free):
            with pytest.raises(OutOfSlots):
                allocator.alloc(number)
        elif kind == 0:
            taken = allocator.alloc(number)
            assert num_slots_in(taken) == number
            held += taken
            free -= {slot for extent in taken for slot in range(*extent)}
        elif kind == 1 and held:
            end = held[number % len(held)].end
            extent = allocator.extend(end, 5)
            assert (extent is None) == (end not in free)
            if extent is not None:
                assert extent.begin == end and set(range(*extent)) <= free
                held.append(extent)
                free -= set(range(*extent))
        elif kind == 2 and held:
            some, held = held[number % 5 :: 2], held[: number % 5] + held[number % 5 + 1 :: 2]
            allocator.free(some)
            free |= {slot for extent in some for slot in range(*extent)}
        begins = sorted(slot for slot in free if slot - 1 not in free)
        ends = sorted(slot + 1 for slot in free if slot + 1 not in free)
        assert allocator.free_extents() == [
            Extent(*pair) for pair in zip(begins, ends, strict=True)
        ]
        assert allocator.num_free == len(free)
        assert allocator.largest_free == max((e.size for e in allocator.free_extents()), default=0)
