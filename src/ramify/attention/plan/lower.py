"""Compiled loops that lower the items of a plan to units, straight into one packed buffer.

    count_units    how much room the arrays of a schedule need
    fill_schedule  fills them; see plan/schedule.py for what they are

Both are one call with plain arrays: handing an array to compiled code costs as much as a hundred of
its loop steps, and a plan is made in every step that forks or prunes.
"""

from __future__ import annotations

import numpy as np

from ramify.core.jit import njit

LIGHT_ROWS = 16  # packed rows of a unit that may merge inside the launch
MANY_PARTS = 6  # partials of a row, on average, that several warps merge
UNIT_INTS, PIECE_INTS, MERGE_INTS, HEADER_INTS = 16, 8, 8, 32
# flags of a unit: rows finished by it, rows with a partial result, rows that see prefixes
DONE, PARTIAL, PREFIX = 1, 2, 4
PIECE_PREFIX, PIECE_OPEN = 1, 2
# columns of the record of a unit: as the kernel reads them, but for the end of its pieces
FIRST, ROWS, BEGIN, END, TOKENS, OPENED, SLOT0, FLAGS = range(8)


@njit
def count_units(items, num_items, columns, tile, row_units):  # type: ignore[no-untyped-def]
    """Fill row_units, the units that touch each ordered row.

    Returns units, pieces, rows with several units, and the partials of these; the units include one
    for every row that no item touches.
    """
    lo, hi = columns[5], columns[6]
    change = np.zeros(len(row_units) + 1, dtype=np.int32)
    units = pieces = merges = parts = 0
    for w in range(num_items):
        begin, end, row_lo, row_hi = items[0, w], items[0, w + 1], items[1, w], items[2, w]
        step = _tile_rows(row_hi - row_lo, tile)
        is_one = row_lo + step >= row_hi
        pieces += (end - begin) * is_one
        for first in range(row_lo, row_hi, step):
            after = min(first + step, row_hi)
            units += 1
            change[first] += 1
            change[after] -= 1
            if not is_one:
                for i in range(begin, end):
                    pieces += (lo[i] < after) & (hi[i] > first)
    so_far = 0
    for row in range(len(row_units)):
        so_far += change[row]
        row_units[row] = so_far
        units += row_units[row] == 0
        merges += row_units[row] > 1
        parts += row_units[row] * (row_units[row] > 1)
    return units, pieces, merges, parts


@njit
def _tile_rows(rows, tile):  # type: ignore[no-untyped-def]
    """Rows per tile when `rows` are split evenly in as few tiles as possible."""
    tiles = (rows + tile - 1) // tile
    return (rows + tiles - 1) // tiles


@njit
def fill_schedule(  # type: ignore[no-untyped-def]
    items, num_items, columns, flags, names_workers, row_order, row_position, row_units,
    sizes, unit_us, token_us, ints, begin,
):  # fmt: skip
    """Fill the arrays that start at `begin` in `ints`.

    Args:
        sizes: tile, group, rows per merge counter, workers, units, pieces, merges, partials.

    Returns units used, slots, tokens read, open pieces, whether a merge is left for a launch, and
    busiest load over mean.
    """
    tile, group, rows_per_group, num_workers, num_units, num_pieces, num_merges, num_parts = sizes
    num_rows = len(row_units)
    header = ints[begin[0] : begin[0] + HEADER_INTS]
    units = ints[begin[1] :][: (num_workers + num_units) * UNIT_INTS].reshape(-1, UNIT_INTS)
    pieces = ints[begin[9] :][: num_pieces * PIECE_INTS].reshape(-1, PIECE_INTS)
    user_row, position_of_row = ints[begin[2] :], ints[begin[3] :]
    units_of_row, expected = ints[begin[4] :], ints[begin[5] :]
    merges = ints[begin[6] :][: num_merges * MERGE_INTS].reshape(-1, MERGE_INTS)
    slots, row_merge = ints[begin[7] :][:num_parts], ints[begin[8] :]
    for row in range(num_rows):
        user_row[row], position_of_row[row] = row_order[row], row_position[row]
        units_of_row[row], row_merge[row] = row_units[row], 0
    for group_of_rows in range((num_rows + rows_per_group - 1) // rows_per_group):
        expected[group_of_rows] = 0

    records = np.empty((num_units, 8), dtype=np.int64)
    worker = np.empty(num_units, dtype=np.int64)
    load = np.zeros(num_workers)
    plan_items, us = (items, num_items, names_workers), (unit_us, token_us)
    made = _list_units(plan_items, columns, flags, tile, us, records, worker, load, pieces)
    _list_rowless(row_units, made, num_workers, records, worker)
    num_slots, most_rows = _give_slots(records, row_units, rows_per_group, expected)
    _list_merges(records, row_units, row_order, row_merge, merges, slots)
    used = _hand_out(records, worker, num_workers, pieces, units)

    # the last unit of a group merges it alone, so only where there is little to merge
    is_light = most_rows * group <= LIGHT_ROWS
    header[:] = 0
    header[0], header[2], header[3] = num_rows, is_light, num_merges
    header[4] = num_parts >= MANY_PARTS * num_merges
    read = num_open = 0
    for u in range(num_units):
        read += records[u, TOKENS]
        num_open += records[u, OPENED]
    total = busiest = 0.0
    for w in range(num_workers):
        total += load[w]
        busiest = max(busiest, load[w])
    over_mean = busiest * num_workers / total if total > 0 else 1.0
    return used, num_slots, read, num_open, num_merges > 0 and not is_light, over_mean


@njit
def _list_units(plan_items, columns, flags, tile, us, records, worker, load, out):  # type: ignore[no-untyped-def]
    """Units of the items with their pieces and workers; returns how many."""
    items, num_items, names_workers = plan_items
    slot, length, lo, hi, position = columns[0], columns[1], columns[5], columns[6], columns[4]
    is_causal, is_open = flags[0], flags[1]
    unit_us, token_us = us
    u = p = 0
    for w in range(num_items):
        row_hi = items[2, w]
        step = _tile_rows(row_hi - items[1, w], tile)
        for first in range(items[1, w], row_hi, step):
            end = min(first + step, row_hi)
            begin = p
            tokens = opened = sees_prefix = 0
            for i in range(items[0, w], items[0, w + 1]):
                if lo[i] < end and hi[i] > first:
                    out[p, 0], out[p, 1], out[p, 2] = slot[i], length[i], lo[i]
                    out[p, 3], out[p, 4] = hi[i], position[i]
                    out[p, 5] = is_causal[i] * PIECE_PREFIX + is_open[i] * PIECE_OPEN
                    out[p, 6], out[p, 7] = 0, 0
                    p += 1
                    tokens += length[i]
                    opened += is_open[i]
                    sees_prefix |= is_causal[i]
            mine = items[3, w] if names_workers else np.argmin(load)
            worker[u] = mine
            load[mine] += unit_us + tokens * token_us
            records[u, FIRST], records[u, ROWS], records[u, BEGIN] = first, end - first, begin
            records[u, END], records[u, TOKENS], records[u, OPENED] = p, tokens, opened
            records[u, SLOT0], records[u, FLAGS] = 0, sees_prefix * PREFIX
            u += 1
    return u


@njit
def _list_rowless(row_units, made, num_workers, records, worker):  # type: ignore[no-untyped-def]
    """Rows that see nothing are units without tokens, behind the `made` ones."""
    row = 0
    for u in range(made, len(records)):
        while row_units[row] != 0:
            row += 1
        records[u, :] = 0
        records[u, FIRST], records[u, ROWS] = row, 1
        worker[u] = (u - made) % num_workers
        row += 1


@njit
def _give_slots(records, row_units, rows_per_group, expected):  # type: ignore[no-untyped-def]
    """Slots for the partial results of units, which their groups of rows expect.

    Returns the slots and the rows of the largest unit with partial results.
    """
    num_slots = most_rows = 0
    for u in range(len(records)):
        first, rows = records[u, FIRST], records[u, ROWS]
        for row in range(first, first + rows):
            records[u, FLAGS] |= PARTIAL if row_units[row] > 1 else DONE
        if records[u, FLAGS] & PARTIAL:
            most_rows = max(most_rows, rows)
            records[u, SLOT0] = num_slots
            num_slots += rows
            last = (first + rows - 1) // rows_per_group
            for group in range(first // rows_per_group, last + 1):
                expected[group] += 1
    return num_slots, most_rows


@njit
def _list_merges(records, row_units, row_order, row_merge, merges, slots):  # type: ignore[no-untyped-def]
    """A row's slots in the order of its units, and the first four beside where they lie."""
    at = np.empty(len(row_units), dtype=np.int64)
    m = parts = 0
    for row in range(len(row_units)):
        if row_units[row] > 1:
            at[row], row_merge[row] = parts, m
            merges[m, 0], merges[m, 1] = row_order[row], parts
            parts += row_units[row]
            merges[m, 2], merges[m, 3] = parts, 0
            m += 1
    for u in range(len(records)):
        if records[u, FLAGS] & PARTIAL:
            first = records[u, FIRST]
            for row in range(first, first + records[u, ROWS]):
                if row_units[row] > 1:
                    slots[at[row]] = records[u, SLOT0] + row - first
                    at[row] += 1
    for m in range(len(merges)):
        begin, end = merges[m, 1], merges[m, 2]
        for i in range(4):
            merges[m, 4 + i] = slots[begin + i] if begin + i < end else 0


@njit
def _hand_out(records, worker, num_workers, pieces, units):  # type: ignore[no-untyped-def]
    """Each worker's first unit, then worker by worker its other ones; returns the places used."""
    count = np.zeros(num_workers, dtype=np.int64)
    for u in range(len(records)):
        count[worker[u]] += 1
    after = np.empty(num_workers, dtype=np.int64)  # place of a worker's next unit but the first
    used = num_workers
    for w in range(num_workers):
        units[w, :] = 0
        after[w] = used
        units[w, 14], units[w, 15] = used, max(count[w] - 1, 0)
        used += max(count[w] - 1, 0)
    for u in range(len(records)):
        w = worker[u]
        is_first = units[w, ROWS] == 0
        place = w if is_first else after[w]
        after[w] += not is_first
        for i in range(8):
            units[place, i] = records[u, i]
        has_pieces = records[u, END] > records[u, BEGIN]
        for i in range(6):
            units[place, 8 + i] = pieces[records[u, BEGIN], i] if has_pieces else 0
        if not is_first:
            units[place, 14], units[place, 15] = 0, 0
    return used
