"""From a plan to what the persistent kernel walks: units per worker, packed as int32.

An item becomes one unit for each row tile of 128 packed rows. Units go to the workers the plan
names, or in order to whoever is free first, as a GPU hands out CTAs. Partial results have slots
only where a row is in several units; rows that share a merge counter form a group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.cost import CostTable
from ramify.attention.plan.plan import AttentionPlan
from ramify.attention.plan.spans import STEP
from ramify.core.jit import njit

Int32Array = npt.NDArray[np.int32]
PACKED_ROWS = 128  # of a unit at most
LIGHT_ROWS = 16  # packed rows of a unit that may merge inside the launch
MANY_PARTS = 6  # partials of a row, on average, that several warps merge
UNIT_INTS, PIECE_INTS, MERGE_INTS, HEADER_INTS = 16, 8, 8, 32
# flags of a unit: rows finished by it, rows with a partial result, rows that see prefixes
DONE, PARTIAL, PREFIX = 1, 2, 4
PIECE_PREFIX, PIECE_OPEN = 1, 2


class Schedule(NamedTuple):
    """Int32 arrays as kernels/hopper/entry.cu reads them; unit w is the first of worker w."""

    # [32] rows, tokens appended since, merge inside the launch, rows to merge, warps share a row
    header: Int32Array
    units: Int32Array  # [U, 16]
    pieces: Int32Array  # [P, 8] slot, length, lo, hi, position, flags, 0, 0
    user_row: Int32Array  # [Q] of each ordered row
    row_position: Int32Array  # [Q]
    row_units: Int32Array  # [Q] units that touch the row
    expected: Int32Array  # [groups] units with partial results in the group
    merges: Int32Array  # [n, 8] of rows with several units: user's row, begin, end, 0, four slots
    merge_slots: Int32Array  # [M] partial results, row by row, in the order of the items
    row_merge: Int32Array  # [Q] place of the row among the merges
    num_slots: int  # partial results of one row
    read_tokens: int
    num_open: int  # pieces that grow by a token when every branch does
    busiest: float  # cost of the busiest worker over the mean

    @property
    def needs_merge(self) -> bool:
        """Whether partial results are left for a launch of their own."""
        return bool(self.header[3]) and not self.header[2]


def group_rows(group: int) -> int:
    """Rows that share a merge counter: about 16 packed ones."""
    return max(1, 16 // group)


def make_schedule(
    plan: AttentionPlan, group: int, num_workers: int, costs: CostTable | None = None
) -> Schedule:
    """Lower a plan.

    Args:
        group: query heads per KV head.
        num_workers: per KV head.
        costs: what units are balanced with where the plan names no workers.
    """
    costs = costs or CostTable()
    num_rows, num_items = plan.num_rows, plan.num_items
    item_lo, item_hi = plan.item_lo, plan.item_hi
    tile = max(1, PACKED_ROWS // group)
    num_units, num_pieces, num_parts, num_unseen = _count(
        plan.item_indptr,
        plan.piece_lo,
        plan.piece_hi,
        item_lo,
        item_hi,
        plan.row_position,
        tile,
    )
    worker = np.full(num_items, -1) if plan.item_worker is None else plan.item_worker
    units = np.zeros((num_workers + num_units + num_unseen, UNIT_INTS), dtype=np.int32)
    pieces = np.empty((num_pieces, PIECE_INTS), dtype=np.int32)
    user_row, row_position, row_units, row_merge = rows = np.empty((4, num_rows), dtype=np.int32)
    expected = np.zeros(-(-num_rows // group_rows(group)), dtype=np.int32)
    # a row that is merged has a part more than a row that is not, at least
    most_merges = min(num_rows, num_parts - (num_rows - num_unseen))
    merges = np.zeros((most_merges, MERGE_INTS), dtype=np.int32)
    slots = np.empty(num_parts, dtype=np.int32)
    used, num_slots, num_merges, num_parts, most_rows, num_open, read, busiest = _fill(
        plan.item_indptr,
        (plan.piece_slot, plan.piece_len, plan.piece_lo, plan.piece_hi, plan.piece_position),
        (plan.piece_causal, plan.piece_open),
        (plan.row_order, plan.row_position),
        item_lo,
        item_hi,
        worker,
        tile,
        group_rows(group),
        num_workers,
        num_units,
        costs.unit_us,
        costs.step_us / STEP,
        units,
        pieces,
        rows,
        expected,
        merges,
        slots,
    )
    header = np.zeros(HEADER_INTS, dtype=np.int32)
    # the last unit of a group merges it alone, so only where there is little to merge
    is_light = most_rows * group <= LIGHT_ROWS
    is_deep = num_parts >= MANY_PARTS * num_merges
    header[:5] = num_rows, 0, is_light, num_merges, is_deep
    return Schedule(
        header=header,
        units=units[:used],
        pieces=pieces,
        user_row=user_row,
        row_position=row_position,
        row_units=row_units,
        expected=expected,
        merges=merges[:num_merges],
        merge_slots=slots[:num_parts],
        row_merge=row_merge,
        num_slots=num_slots,
        read_tokens=read,
        num_open=num_open,
        busiest=busiest,
    )


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


@njit
def _tile_rows(rows, tile):  # type: ignore[no-untyped-def]
    """Rows per tile when `rows` are split evenly in as few tiles as possible."""
    tiles = (rows + tile - 1) // tile
    return (rows + tiles - 1) // tiles


@njit
def _count(item_indptr, lo, hi, item_lo, item_hi, row_position, tile):  # type: ignore[no-untyped-def]
    """Units, pieces and rows of all units, and the rows that see nothing."""
    units, pieces, parts, unseen = 0, 0, 0, 0
    for w in range(len(item_lo)):
        rows = item_hi[w] - item_lo[w]
        parts += rows
        if rows <= tile:
            units += 1
            pieces += item_indptr[w + 1] - item_indptr[w]
            continue
        step = _tile_rows(rows, tile)
        for first in range(item_lo[w], item_hi[w], step):
            units += 1
            for i in range(item_indptr[w], item_indptr[w + 1]):
                if lo[i] < first + step and hi[i] > first:
                    pieces += 1
    for position in row_position:
        unseen += position < 0
    return units, pieces, parts, unseen


@njit
def _fill(  # type: ignore[no-untyped-def]
    item_indptr, plan_pieces, flags, plan_rows, item_lo, item_hi, item_worker,
    tile, rows_per_group, num_workers, num_units, unit_us, token_us,
    units, pieces, rows, expected, merges, slots,
):  # fmt: skip
    """Fill the arrays; `rows` [4, Q] are those of each ordered row.

    Returns units used, slots, merges, their partials, rows of the largest unit with partials, open
    pieces, tokens read, busiest load over mean.
    """
    slot, length, lo, hi, position = plan_pieces
    is_causal, is_open = flags
    row_order, row_position = plan_rows
    user_row, position_of_row, row_units, row_merge = rows
    num_rows = len(row_units)
    first_row = np.empty(num_units, dtype=np.int64)
    row_count = np.empty(num_units, dtype=np.int64)
    begin = np.empty(num_units + 1, dtype=np.int64)
    worker = np.empty(num_units, dtype=np.int64)
    tokens = np.empty(num_units, dtype=np.int64)
    opened = np.empty(num_units, dtype=np.int64)
    unit_flags = np.zeros(num_units, dtype=np.int64)
    load = np.zeros(num_workers)
    change = np.zeros(num_rows + 1, dtype=np.int64)
    u = p = read = 0
    for w in range(len(item_lo)):
        step = _tile_rows(item_hi[w] - item_lo[w], tile)
        for first in range(item_lo[w], item_hi[w], step):
            end = min(first + step, item_hi[w])
            first_row[u], row_count[u], begin[u] = first, end - first, p
            num_tokens = num_opened = sees_prefix = 0
            for i in range(item_indptr[w], item_indptr[w + 1]):
                if lo[i] < end and hi[i] > first:
                    pieces[p, 0], pieces[p, 1], pieces[p, 2] = slot[i], length[i], lo[i]
                    pieces[p, 3], pieces[p, 4] = hi[i], position[i]
                    pieces[p, 5] = is_causal[i] * PIECE_PREFIX + is_open[i] * PIECE_OPEN
                    pieces[p, 6], pieces[p, 7] = 0, 0
                    p += 1
                    num_tokens += length[i]
                    num_opened += is_open[i]
                    sees_prefix |= is_causal[i]
            tokens[u], opened[u], unit_flags[u] = num_tokens, num_opened, sees_prefix * PREFIX
            mine = item_worker[w]
            if mine < 0:
                mine = np.argmin(load)
            worker[u] = mine
            load[mine] += unit_us + num_tokens * token_us
            change[first] += 1
            change[end] -= 1
            read += num_tokens
            u += 1
    begin[u] = p

    count = 0
    for r in range(num_rows):
        count += change[r]
        row_units[r], row_merge[r] = count, 0
        user_row[r], position_of_row[r] = row_order[r], row_position[r]
    num_slots = most_rows = num_open = 0
    slot0 = np.zeros(num_units, dtype=np.int64)
    for u in range(num_units):
        for r in range(first_row[u], first_row[u] + row_count[u]):
            unit_flags[u] |= DONE if row_units[r] == 1 else PARTIAL
        num_open += opened[u]
        if unit_flags[u] & PARTIAL:
            most_rows = max(most_rows, row_count[u])
            slot0[u] = num_slots
            num_slots += row_count[u]
            last = (first_row[u] + row_count[u] - 1) // rows_per_group
            for g in range(first_row[u] // rows_per_group, last + 1):
                expected[g] += 1
    # a row's slots, in the order of the units
    num_merges = num_parts = 0
    at = np.zeros(num_rows, dtype=np.int64)
    for r in range(num_rows):
        if row_units[r] > 1:
            at[r] = num_parts
            row_merge[r] = num_merges
            merges[num_merges, 0], merges[num_merges, 1] = user_row[r], num_parts
            num_parts += row_units[r]
            merges[num_merges, 2] = num_parts
            num_merges += 1
    for u in range(num_units):
        if unit_flags[u] & PARTIAL:
            for r in range(first_row[u], first_row[u] + row_count[u]):
                if row_units[r] > 1:
                    slots[at[r]] = slot0[u] + r - first_row[u]
                    at[r] += 1
    for m in range(num_merges):
        for i in range(min(4, merges[m, 2] - merges[m, 1])):
            merges[m, 4 + i] = slots[merges[m, 1] + i]

    # rows that see nothing are units without tokens
    extra = 0
    for r in range(num_rows):
        if row_units[r] == 0:
            extra += 1
    total = num_units + extra
    per_worker = np.zeros(num_workers + 1, dtype=np.int64)
    for u in range(num_units):
        per_worker[worker[u] + 1] += 1
    for e in range(extra):
        per_worker[e % num_workers + 1] += 1
    # place of each worker's second unit
    after = np.empty(num_workers + 1, dtype=np.int64)
    after[0] = num_workers
    for w in range(num_workers):
        after[w + 1] = after[w] + max(per_worker[w + 1] - 1, 0)
    taken = np.zeros(num_workers, dtype=np.int64)
    row = 0
    for u in range(total):
        if u < num_units:
            w = worker[u]
        else:
            w = (u - num_units) % num_workers
            while row_units[row] != 0:
                row += 1
        place = w if taken[w] == 0 else after[w] + taken[w] - 1
        taken[w] += 1
        out = units[place]
        if u < num_units:
            out[0], out[1], out[2], out[3] = first_row[u], row_count[u], begin[u], begin[u + 1]
            out[4], out[5], out[6], out[7] = tokens[u], opened[u], slot0[u], unit_flags[u]
            for i in range(6):
                out[8 + i] = pieces[begin[u], i]
        else:
            out[0], out[1], out[7] = row, 1, DONE
            row += 1
    for w in range(num_workers):
        units[w, 14], units[w, 15] = after[w], max(per_worker[w + 1] - 1, 0)
    total_load = busiest = 0.0
    for w in range(num_workers):
        total_load += load[w]
        busiest = max(busiest, load[w])
    return (
        after[num_workers],
        num_slots,
        num_merges,
        num_parts,
        most_rows,
        num_open,
        read,
        busiest * num_workers / total_load if total_load > 0 else 1.0,
    )
