"""From a plan to what the persistent kernel walks: units per worker, packed as int32.

An item becomes one unit for each row tile of 128 packed rows. Units go to the workers the plan
names, or in order to whoever is free first, as a GPU hands out CTAs. Partial results have slots
only where a row is in several units; rows that share a merge counter form a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.cost import CostTable
from ramify.attention.plan.cut import STEP
from ramify.attention.plan.lower import (
    HEADER_INTS,
    MERGE_INTS,
    PIECE_INTS,
    PIECE_OPEN,
    UNIT_INTS,
    count_units,
    fill_schedule,
)
from ramify.attention.plan.pieces import IntArray
from ramify.attention.plan.plan import AttentionPlan
from ramify.core.jit import njit

Int32Array = npt.NDArray[np.int32]
Room = Callable[[Mapping[str, int]], tuple[Int32Array, IntArray]]
PACKED_ROWS = 128  # of a unit at most


class Schedule(NamedTuple):
    """Int32 arrays as kernels/hopper/entry.cu reads them; unit w is the first of worker w."""

    ints: Int32Array  # all arrays
    begin: IntArray  # [10] where each starts
    num_rows: int  # Q
    num_units: int  # U
    num_pieces: int  # P
    num_groups: int  # of rows that share a merge counter
    num_merges: int  # M
    num_parts: int  # S
    num_slots: int  # partial results of one row
    read_tokens: int
    num_open: int  # pieces that grow by a token when every branch does
    needs_merge: bool  # partial results are left for a launch of their own
    busiest: float  # cost of the busiest worker over the mean

    @property
    def header(self) -> Int32Array:
        """[32] rows, tokens appended since, merge inside the launch, rows to merge, warps share."""
        return self._flat(0, HEADER_INTS)

    @property
    def units(self) -> Int32Array:
        """[U, 16]."""
        return self._flat(1, self.num_units * UNIT_INTS).reshape(-1, UNIT_INTS)

    @property
    def pieces(self) -> Int32Array:
        """[P, 8] slot, length, lo, hi, position, flags, 0, 0."""
        return self._flat(9, self.num_pieces * PIECE_INTS).reshape(-1, PIECE_INTS)

    @property
    def user_row(self) -> Int32Array:
        """[Q] of each ordered row."""
        return self._flat(2, self.num_rows)

    @property
    def row_position(self) -> Int32Array:
        """[Q] of each ordered row."""
        return self._flat(3, self.num_rows)

    @property
    def row_units(self) -> Int32Array:
        """[Q] units that touch the row."""
        return self._flat(4, self.num_rows)

    @property
    def expected(self) -> Int32Array:
        """[groups] units with partial results in the group."""
        return self._flat(5, self.num_groups)

    @property
    def merges(self) -> Int32Array:
        """[M, 8] of rows with several units: user's row, begin, end, 0, the first four slots."""
        return self._flat(6, self.num_merges * MERGE_INTS).reshape(-1, MERGE_INTS)

    @property
    def merge_slots(self) -> Int32Array:
        """[S] partial results, row by row, in the order of the items."""
        return self._flat(7, self.num_parts)

    @property
    def row_merge(self) -> Int32Array:
        """[Q] place of the row among the merges."""
        return self._flat(8, self.num_rows)

    def _flat(self, place: int, count: int) -> Int32Array:
        begin = self.begin[place]
        return self.ints[begin : begin + count]


def group_rows(group: int) -> int:
    """Rows that share a merge counter: about 16 packed ones."""
    return max(1, 16 // group)


def array_sizes(
    *, rows: int, units: int, pieces: int, groups: int, merges: int, parts: int
) -> dict[str, int]:
    """Integers of each array of a schedule, in the order of `Schedule.begin`.

    Most of the room made once for all plans is for pieces: they come last, see DeviceArrays.
    """
    return {
        "header": HEADER_INTS,
        "units": units * UNIT_INTS,
        "user_row": rows,
        "row_position": rows,
        "row_units": rows,
        "expected": groups,
        "merges": merges * MERGE_INTS,
        "merge_slots": parts,
        "row_merge": rows,
        "pieces": pieces * PIECE_INTS,
    }


def fresh_room(sizes: Mapping[str, int]) -> tuple[Int32Array, IntArray]:
    """Memory of its own for one schedule, and where its arrays start."""
    end = np.cumsum(list(sizes.values()))
    return np.empty(end[-1], dtype=np.int32), end - list(sizes.values())


def make_schedule(
    plan: AttentionPlan,
    group: int,
    num_workers: int,
    costs: CostTable | None = None,
    room: Room = fresh_room,
) -> Schedule:
    """Lower a plan.

    Args:
        group: query heads per KV head.
        num_workers: per KV head.
        costs: what units are balanced with where the plan names no workers.
        room: gives memory for arrays of so many integers at least, and where each starts.
    """
    costs = costs or CostTable()
    num_rows, tile = plan.num_rows, max(1, PACKED_ROWS // group)
    rows_per_group = group_rows(group)
    num_groups = -(-num_rows // rows_per_group)
    parts = plan.parts
    row_units = np.empty(num_rows, dtype=np.int32)
    num_units, num_pieces, num_merges, num_parts = count_units(
        parts.items, parts.num_items, parts.columns, tile, row_units
    )
    ints, begin = room(
        array_sizes(
            rows=num_rows,
            units=num_workers + num_units,
            pieces=num_pieces,
            groups=num_groups,
            merges=num_merges,
            parts=num_parts,
        )
    )
    used, *rest = fill_schedule(
        parts.items,
        parts.num_items,
        parts.columns,
        parts.flags,
        plan.names_workers,
        plan.row_order,
        plan.row_position,
        row_units,
        (tile, group, rows_per_group, num_workers, num_units, num_pieces, num_merges, num_parts),
        costs.unit_us,
        costs.step_us / STEP,
        ints,
        begin,
    )
    counts = num_rows, used, num_pieces, num_groups, num_merges, num_parts
    return Schedule(ints, begin, *counts, *rest)


def windowed_read(schedule: Schedule, window: int, *, grown: int = 0) -> int:
    """Tokens loaded when a row at position p sees positions above p - window.

    The kernel skips the stages of one piece that no row of the unit sees.

    Args:
        grown: tokens appended to every branch since the plan.
    """
    s = schedule
    return int(_windowed(s.units, s.pieces, s.row_position, window, grown))


@njit
def _windowed(units, pieces, row_position, window, grown):  # type: ignore[no-untyped-def]
    read = 0
    for u in range(len(units)):
        if units[u, 4] == 0:
            continue
        rows = row_position[units[u, 0] : units[u, 0] + units[u, 1]]
        hidden = rows.min() + grown - window
        skip = 0  # tokens of the piece that an earlier stage took
        for i in range(units[u, 2], units[u, 3]):
            tokens = pieces[i, 1] + (grown if pieces[i, 5] & PIECE_OPEN else 0)
            length, position = tokens - skip, pieces[i, 4] + skip
            whole = max(length, 0) // STEP
            gone = min(max((hidden + 1 - position) // STEP, 0), whole)
            read += tokens - gone * STEP
            rest = length - whole * STEP
            # the stage that takes the rest of this piece fills up with the next ones
            skip = (STEP - rest if rest > 0 else 0) if length > 0 else -length
    return read
