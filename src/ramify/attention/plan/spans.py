"""Stream-K cuts: lists of KV, one per row tile, laid end to end and cut into spans of equal cost.

A row tile is an interval of ordered rows with all the pieces that one of them sees. Cutting the
whole line, not each list, gives every worker the same work whatever the lengths; a span that ends
inside a list costs its rows one more partial result.

Source: LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480), equal spans over ragged lists.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.pieces import IntArray, Pieces
from ramify.core.jit import njit

STEP = 64  # tokens of a step: cuts fall on whole ones where they can
SNAP = 0.08  # a span ends at a list's edge if that makes it shorter by at most so much
MIN_STEPS = {False: 1.0, True: 2.0}  # of a span; a wide one leaves more partial results


class Lists(NamedTuple):
    """T lists of pieces, each for an interval of rows. Entry e is the start of a piece."""

    indptr: IntArray  # [T + 1], CSR over the entries
    entries: IntArray  # [4, E] piece, tokens of it, whether an earlier list has them too, half
    row_lo: IntArray  # [T] first ordered row of the list
    row_hi: IntArray  # [T] one past the last


# lines of `Lists.entries`; HALF is 1 or 2 where only the first or second half of a tile's rows
# see the entry, else 0
PIECE, TOKENS, IS_REREAD, HALF = range(4)


class Spans(NamedTuple):
    """The lists, cut. Items follow one another along the line."""

    pieces: Pieces  # [C]
    item: IntArray  # [C], rising
    row_range: tuple[IntArray, IntArray]  # [W] rows of the list of each item: first, one past last
    item_worker: IntArray | None  # [W]; None: cuts are fixed and any worker may take any
    predicted_us: float  # of the busiest worker, and of a merge where lists are cut


def cut_spans(lists: Lists, pieces: Pieces, tuning: Tuning, *, is_wide: bool) -> Spans:
    """Cut lists of `pieces` for `tuning.num_workers` workers.

    Args:
        is_wide: lists have more packed rows than half a tile, so products may outweigh reads.
    """
    costs, fixed = tuning.costs, tuning.fixed_cuts
    compute = costs.compute_us if is_wide else costs.compute_us / 2
    room = lists.entries.shape[1] + len(lists.indptr) + tuning.num_workers
    if fixed is not None:
        room += int(lists.entries[TOKENS].sum()) // fixed
    columns = np.empty((8, room), dtype=np.int64)
    num_cuts, num_items, predicted_us = _cut(
        *lists,
        pieces.slot,
        pieces.node,
        pieces.offset,
        columns,
        tuning.num_workers,
        fixed or 0,
        max(costs.step_us, compute) / STEP,
        max(costs.reread_us, compute) / STEP,
        costs.unit_us,
        costs.partial_us,
        costs.merge_us,
        MIN_STEPS[is_wide],
    )
    slot, length, node, offset, item = columns[:5, :num_cuts]
    item_lo, item_hi, item_worker = columns[5:, :num_items]
    return Spans(
        pieces=Pieces(slot, length, node, offset),
        item=item,
        row_range=(item_lo, item_hi),
        item_worker=None if fixed else item_worker,
        predicted_us=predicted_us,
    )


# Compiled code here copies and searches in loops of its own: an assignment of slices, a sort and a
# maximum of an array would take most of the seconds that the first start on a machine compiles.
@njit
def _cut(  # type: ignore[no-untyped-def]
    indptr, entries, row_lo, row_hi, slot, node, offset, out,
    workers, fixed, first_us, again_us, unit_us, partial_us, merge_us, min_steps,
):  # fmt: skip
    """Lines of `out`: slot, length, node, offset, item of each cut; rows, worker of each item.

    Returns the number of cuts and items, and the predicted time.
    """
    lists, pieces = (indptr, entries, row_lo, row_hi), (slot, node, offset)
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
            items = _keep_whole(lists, pieces, worker, out)
            return indptr[len(cost)], items, busiest
    # a list cut in n spans takes longest / n to read and n partial results to merge
    least = max(np.sqrt(partial_us * longest), unit_us + min_steps * STEP * first_us)
    workers = max(1, min(workers, int(total / least + 0.5)))
    cuts, items = _cut_evenly(
        lists, pieces, cost, total, workers, fixed, first_us, again_us, unit_us, out
    )
    even = total / workers
    if even > 0:  # some row sees something
        return cuts, items, even + unit_us + merge_us + partial_us * np.ceil(longest / even)
    return cuts, items, 0.0


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
    indptr, entries, row_lo, row_hi = lists
    items = 0
    for t in range(len(worker)):
        begin, end = indptr[t], indptr[t + 1]
        count = begin
        for e in range(begin, end):
            if entries[HALF, e] == 0:
                _keep(entries, pieces, e, items, out, count)
                count += 1
        mine, other, half = begin, begin, 1
        while count < end:
            tokens = 0
            while tokens < STEP and mine < end:
                if entries[HALF, mine] == half:
                    _keep(entries, pieces, mine, items, out, count)
                    tokens += entries[TOKENS, mine]
                    count += 1
                mine += 1
            mine, other, half = other, mine, 3 - half
        if end > begin:
            out[5, items], out[6, items], out[7, items] = row_lo[t], row_hi[t], worker[t]
            items += 1
    return items


@njit
def _keep(entries, pieces, e, item, out, place):  # type: ignore[no-untyped-def]
    slot, node, offset = pieces
    i = entries[PIECE, e]
    out[0, place], out[1, place], out[2, place] = slot[i], entries[TOKENS, e], node[i]
    out[3, place], out[4, place] = offset[i], item


@njit
def _cut_evenly(  # type: ignore[no-untyped-def]
    lists, pieces, cost, total, workers, fixed, first_us, again_us, unit_us, out
):
    """Spans of equal cost, or of `fixed` tokens; returns the cuts and the items."""
    indptr, entries, row_lo, row_hi = lists
    slot, node, offset = pieces
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
        out[5, items], out[6, items], out[7, items] = row_lo[t], row_hi[t], worker
        for e in range(indptr[t], indptr[t + 1]):
            i, length = entries[PIECE, e], entries[TOKENS, e]
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
                    out[0, cuts], out[1, cuts], out[2, cuts] = slot[i] + skip, take, node[i]
                    out[3, cuts], out[4, cuts] = offset[i] + skip, items
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
                    out[5, items], out[6, items], out[7, items] = row_lo[t], row_hi[t], worker
        items += tokens > 0
    return cuts, items
