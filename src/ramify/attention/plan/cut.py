"""Compiled loops that cut lists of pieces in spans of equal cost: `cut_lists`; see plan/spans.py.

They copy and search in loops of their own: an assignment of slices, a sort and a maximum of an
array would take most of the seconds that the first start on a machine compiles.
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.pieces import HI, LENGTH, LO, NODE, OFFSET, OPEN, POSITION, SLOT
from ramify.core.jit import njit

STEP = 64  # tokens of a step: cuts fall on whole ones where they can
SNAP = 0.08  # a span ends at a list's edge if that makes it shorter by at most so much
# lines of `entries`: a piece, tokens of it, whether an earlier list has them too, and 1 or 2 where
# only the first or second half of the list's rows see them, else 0
PIECE, TOKENS, IS_REREAD, HALF = range(4)


@njit
def cut_lists(  # type: ignore[no-untyped-def]
    indptr, entries, row_lo, row_hi, table, row_position, columns, flags, items,
    workers, fixed, first_us, again_us, unit_us, partial_us, merge_us, min_steps, below_us,
):  # fmt: skip
    """Fill the pieces and items of a plan, see `Parts`, and in items[3] who runs an item.

    Returns the number of pieces and items, and the predicted time; if that is not below `below_us`
    there are none.
    """
    lists, out = (indptr, entries, row_lo, row_hi), (columns, flags, items)
    pieces = table, row_position
    cost = _weigh(indptr, entries, first_us, again_us, unit_us)
    total = longest = 0.0
    for t in range(len(cost)):
        total += cost[t]
        longest = max(longest, cost[t])
    even = total / workers
    if not fixed and len(cost) and longest <= even + merge_us:
        # lists that fill the workers evenly enough stay whole: nothing to merge
        worker, busiest = _share_out(cost, workers)
        if busiest <= even + merge_us:
            count = 0
            if busiest < below_us:
                count = _keep_whole(lists, pieces, worker, out)
            return indptr[len(cost)], count, busiest
    # a list cut in n spans takes longest / n to read and n partial results to merge
    least = max(np.sqrt(partial_us * longest), unit_us + min_steps * STEP * first_us)
    workers = max(1, min(workers, int(total / least + 0.5)))
    even, predicted = total / workers, 0.0
    if even > 0:  # some row sees something
        predicted = even + unit_us + merge_us + partial_us * np.ceil(longest / even)
    cuts = count = 0
    if predicted < below_us:
        cuts, count = _cut_evenly(
            lists, pieces, cost, total, workers, fixed, first_us, again_us, unit_us, out
        )
    return cuts, count, predicted


@njit
def _weigh(indptr, entries, first_us, again_us, unit_us):  # type: ignore[no-untyped-def]
    cost = np.empty(len(indptr) - 1)
    for t in range(len(cost)):
        us = unit_us
        for e in range(indptr[t], indptr[t + 1]):
            us += entries[TOKENS, e] * (again_us if entries[IS_REREAD, e] else first_us)
        cost[t] = us
    return cost


@njit
def _share_out(cost, workers):  # type: ignore[no-untyped-def]
    """Whole lists, the longest first, to whoever has least: their workers, and the most cost."""
    load = np.zeros(workers)
    worker = np.empty(len(cost), dtype=np.int64)
    busiest = 0.0
    for t in _longest_first(cost):
        mine = 0
        for w in range(1, workers):
            mine = w if load[w] < load[mine] else mine
        worker[t] = mine
        load[mine] += cost[t]
        busiest = max(busiest, load[mine])
    return worker, busiest


@njit
def _longest_first(cost):  # type: ignore[no-untyped-def]
    """Lists by falling cost: a merge sort, stable."""
    count, width = len(cost), 1
    order, merged = np.arange(count), np.empty(count, dtype=np.int64)
    while width < count:
        for begin in range(0, count, 2 * width):
            left, middle = begin, min(begin + width, count)
            right, end = middle, min(begin + 2 * width, count)
            for place in range(begin, end):
                if left < middle and (right == end or cost[order[left]] >= cost[order[right]]):
                    merged[place] = order[left]
                    left += 1
                else:
                    merged[place] = order[right]
                    right += 1
        order, merged = merged, order
        width *= 2
    return order


@njit
def _keep_whole(lists, pieces, worker, out):  # type: ignore[no-untyped-def]
    """One item a list: what all rows see, then steps of either half of its rows in turn.

    Each half of a tile's rows has matrix units of its own, which so stay busy at the same time.
    """
    indptr, entries, _, _ = lists
    items = 0
    for t in range(len(worker)):
        begin, end = indptr[t], indptr[t + 1]
        _begin_item(out, items, begin, worker[t])
        count = begin
        for e in range(begin, end):
            if entries[HALF, e] == 0:
                _put(lists, pieces, t, e, 0, entries[TOKENS, e], out, items, count)
                count += 1
        mine, other, half = begin, begin, 1
        while count < end:
            tokens = 0
            while tokens < STEP and mine < end:
                if entries[HALF, mine] == half:
                    _put(lists, pieces, t, mine, 0, entries[TOKENS, mine], out, items, count)
                    tokens += entries[TOKENS, mine]
                    count += 1
                mine += 1
            mine, other, half = other, mine, 3 - half
        items += end > begin
    _begin_item(out, items, indptr[len(worker)], 0)
    return items


@njit
def _begin_item(out, item, begin, worker):  # type: ignore[no-untyped-def]
    items = out[2]
    items[0, item], items[1, item], items[2, item], items[3, item] = begin, 1 << 62, 0, worker


@njit
def _put(lists, pieces, t, e, skip, take, out, item, place):  # type: ignore[no-untyped-def]
    """`take` tokens of an entry behind the first `skip`, for those rows of list t that see them."""
    _, entries, row_lo, row_hi = lists
    table, row_position = pieces
    columns, flags, items = out
    i = entries[PIECE, e]
    position = table[POSITION, i] + skip
    lo, hi = max(table[LO, i], row_lo[t]), min(table[HI, i], row_hi[t])
    # own rows come first by growing length, and some row of the list sees the token
    while row_position[lo] < position:
        lo += 1
    columns[0, place], columns[1, place] = table[SLOT, i] + skip, take
    columns[2, place], columns[3, place] = table[NODE, i], table[OFFSET, i] + skip
    columns[4, place], columns[5, place], columns[6, place] = position, lo, hi
    flags[0, place] = row_position[lo] < position + take - 1
    # no branch: which pieces are tips is as good as random
    flags[1, place] = (table[OPEN, i] != 0) & (skip + take == table[LENGTH, i])
    items[1, item], items[2, item] = min(items[1, item], lo), max(items[2, item], hi)


@njit
def _cut_evenly(  # type: ignore[no-untyped-def]
    lists, pieces, cost, total, workers, fixed, first_us, again_us, unit_us, out
):
    """Spans of equal cost, or of `fixed` tokens; returns the pieces and the items."""
    indptr, entries, _, _ = lists
    worker, left, rest = 0, total / workers, total
    target = left
    cuts = items = 0
    is_fresh = True  # the span has no unit yet, and every span has one: only more of them count
    for t in range(len(cost)):
        # the edge of a list is near: ending here is closer to even than taking the list
        if worker < workers - 1 and left < min(SNAP * target, cost[t] / 2):
            worker += 1
            left = target = rest / (workers - worker)
            is_fresh = True
        left -= 0.0 if is_fresh else unit_us
        rest -= unit_us
        tokens = 0  # of the present item
        list_left = cost[t] - unit_us
        takes_all = False
        _begin_item(out, items, cuts, worker)
        for e in range(indptr[t], indptr[t + 1]):
            length = entries[TOKENS, e]
            per_token = again_us if entries[IS_REREAD, e] else first_us
            skip = 0
            while skip < length:
                take = length - skip
                if fixed:
                    room = fixed - tokens
                elif worker == workers - 1 or takes_all:
                    room = take
                else:
                    room = int(max(left, 0.0) / per_token)
                    if room < take:
                        # to the nearest whole step of the item
                        room = (tokens + room + STEP // 2) // STEP * STEP - tokens
                        # what is left of the list is not worth a unit of its own
                        takes_all = tokens + room > 0 and list_left - room * per_token <= unit_us
                        room = take if takes_all else room
                take = min(take, room)
                if take > 0:
                    _put(lists, pieces, t, e, skip, take, out, items, cuts)
                    cuts += 1
                    skip += take
                    tokens += take
                    left -= take * per_token
                    rest -= take * per_token
                    list_left -= take * per_token
                    is_fresh = False
                if skip < length:
                    items += tokens > 0
                    tokens = 0
                    if not fixed:
                        worker += 1
                        left = target = rest / (workers - worker)
                        is_fresh = True
                    _begin_item(out, items, cuts, worker)
        items += tokens > 0
    _begin_item(out, items, cuts, 0)
    return cuts, items
