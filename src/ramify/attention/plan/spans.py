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
    """T lists of pieces. Entry e is the first `length[e]` tokens of a piece."""

    indptr: IntArray  # [T + 1], CSR over the entries
    piece: IntArray  # [E]
    length: IntArray  # [E]
    is_reread: IntArray  # [E] 1: an earlier list has this entry too
    half: IntArray  # [E] 1 or 2: only rows of the first or second half of the tile see it, else 0


class Spans(NamedTuple):
    """The lists, cut. Items follow one another along the line."""

    pieces: Pieces  # [C]
    item: IntArray  # [C], rising
    item_list: IntArray  # [W] the list of each item
    item_worker: IntArray | None  # [W]; None: cuts are fixed and any worker may take any
    predicted_us: float  # of the busiest worker, and of a merge where lists are cut


def cut_spans(lists: Lists, pieces: Pieces, tuning: Tuning, *, is_wide: bool) -> Spans:
    """Cut lists of `pieces` for `tuning.num_workers` workers.

    Args:
        is_wide: lists have more packed rows than half a tile, so products may outweigh reads.
    """
    costs = tuning.costs
    compute = costs.compute_us if is_wide else costs.compute_us / 2
    first_us, again_us = max(costs.step_us, compute), max(costs.reread_us, compute)
    room = len(lists.piece) + len(lists.indptr) + tuning.num_workers
    if tuning.fixed_cuts is not None:
        room += int(lists.length.sum()) // tuning.fixed_cuts
    columns = np.empty((7, room), dtype=np.int64)
    cost = np.empty(len(lists.indptr) - 1)
    _weigh_lists(
        lists.indptr,
        lists.length,
        lists.is_reread,
        first_us / STEP,
        again_us / STEP,
        costs.unit_us,
        cost,
    )
    num_cuts, num_items, predicted_us = _cut(
        lists.indptr,
        (lists.piece, lists.length, lists.is_reread, lists.half),
        (pieces.slot, pieces.node, pieces.offset),
        cost,
        np.argsort(-cost, kind="stable"),
        columns,
        tuning.num_workers,
        tuning.fixed_cuts or 0,
        first_us / STEP,
        again_us / STEP,
        costs.unit_us,
        costs.partial_us,
        costs.merge_us,
        MIN_STEPS[is_wide],
    )
    slot, length, node, offset, item = columns[:5, :num_cuts]
    item_list, item_worker = columns[5:, :num_items]
    return Spans(
        pieces=Pieces(slot=slot, length=length, node=node, offset=offset),
        item=item,
        item_list=item_list,
        item_worker=None if tuning.fixed_cuts else item_worker,
        predicted_us=predicted_us,
    )


@njit
def _take_turns(begin, end, length, half, order):  # type: ignore[no-untyped-def]
    """Order of a list that stays whole: what all rows see, then steps of either half in turn.

    Each half of a tile's rows has matrix units of its own, which so stay busy at the same time.
    """
    sorted_by_half = np.empty((3, end - begin), dtype=np.int64)
    count = np.zeros(3, dtype=np.int64)
    for e in range(begin, end):
        sorted_by_half[half[e], count[half[e]]] = e
        count[half[e]] += 1
    for i in range(count[0]):
        order[begin + i] = sorted_by_half[0, i]
    place = begin + count[0]
    after = np.zeros(3, dtype=np.int64)
    turn = 1
    while place < end:
        tokens = 0
        while tokens < STEP and after[turn] < count[turn]:
            e = sorted_by_half[turn, after[turn]]
            order[place] = e
            tokens += length[e]
            after[turn] += 1
            place += 1
        turn = 3 - turn


# Compiled code here copies and searches in loops of its own: an assignment of slices, a sort and a
# maximum of an array would take most of the seconds that the first start on a machine compiles.
@njit
def _weigh_lists(indptr, length, is_reread, first_us, again_us, unit_us, cost):  # type: ignore[no-untyped-def]
    for t in range(len(cost)):
        us = unit_us
        for e in range(indptr[t], indptr[t + 1]):
            us += length[e] * (again_us if is_reread[e] else first_us)
        cost[t] = us


@njit
def _least_loaded(load):  # type: ignore[no-untyped-def]
    best = 0
    for w in range(1, len(load)):
        if load[w] < load[best]:
            best = w
    return best


@njit
def _cut(
    indptr,
    entries,
    pieces,
    cost,
    longest_first,
    out,
    workers,
    fixed,
    first_us,
    again_us,
    unit_us,
    partial_us,
    merge_us,
    min_steps,
):  # type: ignore[no-untyped-def]
    """Rows of `out`: slot, length, node, offset, item of each cut; list, worker of each item.

    Returns the number of cuts and items, and the predicted time.
    """
    piece, length, is_reread, half = entries
    slot, node, offset = pieces
    num_lists = len(indptr) - 1
    total = longest = 0.0
    for t in range(num_lists):
        total += cost[t]
        longest = max(longest, cost[t])
    if not fixed and num_lists:
        # lists that fill the workers evenly enough stay whole: nothing to merge
        load = np.zeros(workers)
        whole = np.empty(num_lists, dtype=np.int64)
        busiest = 0.0
        for t in longest_first:
            whole[t] = _least_loaded(load)
            load[whole[t]] += cost[t]
            busiest = max(busiest, load[whole[t]])
        if busiest <= total / workers + merge_us:
            items = 0
            for t in range(num_lists):
                _take_turns(indptr[t], indptr[t + 1], length, half, out[4])
                for c in range(indptr[t], indptr[t + 1]):
                    e = out[4, c]
                    i = piece[e]
                    out[0, c], out[1, c], out[2, c] = slot[i], length[e], node[i]
                    out[3, c], out[4, c] = offset[i], items
                if indptr[t + 1] > indptr[t]:
                    out[5, items], out[6, items] = t, whole[t]
                    items += 1
            return indptr[num_lists], items, busiest
    # a list cut in n spans takes longest / n to read and n partial results to merge
    least = max(np.sqrt(partial_us * longest), unit_us + min_steps * STEP * first_us)
    workers = max(1, min(workers, int(total / least + 0.5)))
    worker, left, rest = 0, total / workers, total
    target = left
    predicted = 0.0
    if target > 0:  # some row sees something
        predicted = target + unit_us + merge_us + partial_us * np.ceil(longest / target)
    cuts = items = 0
    is_fresh = True  # the span has no unit yet, and every span has one: only more of them count
    for t in range(len(indptr) - 1):
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
        out[5, items], out[6, items] = t, worker
        for e in range(indptr[t], indptr[t + 1]):
            per_token = again_us if is_reread[e] else first_us
            skip = 0
            while skip < length[e]:
                take = length[e] - skip
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
                    i = piece[e]
                    out[0, cuts], out[1, cuts], out[2, cuts] = slot[i] + skip, take, node[i]
                    out[3, cuts], out[4, cuts] = offset[i] + skip, items
                    cuts += 1
                    skip += take
                    tokens += take
                    left -= take * per_token
                    rest -= take * per_token
                    list_left -= take * per_token
                    is_fresh = False
                if skip < length[e]:
                    if tokens:
                        items += 1
                    tokens = 0
                    if not fixed:
                        worker += 1
                        left = target = rest / (workers - worker)
                        is_fresh = True
                    out[5, items], out[6, items] = t, worker
        if tokens:
            items += 1
    return cuts, items, predicted
