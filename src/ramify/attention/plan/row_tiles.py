"""Row tiles: where ordered rows are cut so that little is read twice, and what each tile reads.

A tile is a unit of its own, reads again what its rows share with those before it, and masks what
only one of its rows sees. The cut of least cost is found row by row, from the best of all cuts
that end before: O(rows + pieces x tiles that see them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.cut import HALF, IS_REREAD, PIECE, STEP, TOKENS
from ramify.attention.plan.pieces import HI, LENGTH, LO, POSITION, IntArray, Visible
from ramify.attention.plan.spans import Lists
from ramify.core.forest import Forest
from ramify.core.jit import njit

NO_EDGES: IntArray = np.empty(0, dtype=np.int64)


class Tiles(NamedTuple):
    """T intervals of ordered rows, and for each the pieces that its rows see."""

    edges: IntArray  # [T + 1]
    lists: Lists
    most_rows: int  # of a tile


def row_tiles(forest: Forest, seen: Visible, most: int, tuning: Tuning) -> Tiles:
    """The cut into row tiles that re-reads least, counting tiles as units, and their lists.

    With fixed cuts no tile holds rows of two trees, so a tree's tiles do not depend on others.

    Args:
        seen: what the rows of the forest see.
        most: rows of a tile.
    """
    costs = tuning.costs
    is_fixed = tuning.fixed_cuts is not None
    num_rows = forest.num_rows
    edges = np.empty(num_rows + 1, dtype=np.int64)
    num_tiles, num_entries, most_rows = _tile(
        seen.table,
        seen.num_pieces,
        most,
        costs.reread_us / STEP,
        costs.masked_part * costs.step_us / STEP,
        costs.unit_us,
        forest.row_lo[forest.parent < 0] if is_fixed else NO_EDGES,
        is_fixed,
        edges,
    )
    indptr = np.empty(num_tiles + 1, dtype=np.int64)
    entries = np.empty((4, num_entries), dtype=np.int32)
    _fill_entries(seen.table, seen.num_pieces, forest.ordered_position, edges, entries, indptr)
    edges = edges[: num_tiles + 1]
    return Tiles(edges, Lists(indptr, entries, edges[:-1], edges[1:]), most_rows)


@njit
def _exact(us):  # type: ignore[no-untyped-def]
    """On a grid where sums are exact: ties between tiles break alike whatever stands before."""
    return np.rint(us * 2**24) / 2**24


@njit
def _tile(  # type: ignore[no-untyped-def]
    table, num_pieces, most, token_us, masked_us, tile_us, roots, is_fixed, edges
):
    """Fill the edges of the tiles; returns tiles, entries of their lists, rows of the largest."""
    lo, hi, length = table[LO, :num_pieces], table[HI, :num_pieces], table[LENGTH, :num_pieces]
    walls = np.zeros(len(edges), dtype=np.bool_)
    for edge in roots:
        walls[edge] = True
    token_us, masked_us, tile_us = _exact(token_us), _exact(masked_us), _exact(tile_us)
    tiles = _row_tiles(lo, hi, length, most, token_us, masked_us, tile_us, walls, is_fixed, edges)
    most_rows = 0
    for t in range(tiles):
        most_rows = max(most_rows, edges[t + 1] - edges[t])
    return tiles, _count_entries(lo, hi, edges, tiles), most_rows


@njit
def _row_tiles(  # type: ignore[no-untyped-def]
    lo, hi, length, most, token_us, masked_us, tile_us, walls, is_fixed, edges
):
    num_rows = len(walls) - 1
    shared = np.zeros(num_rows + 1, np.int64)  # tokens that rows before and after an edge both see
    private = np.zeros(num_rows + 1, np.int64)  # tokens that only the row before an edge sees
    for i in range(len(lo)):
        # no branch: which pieces a single row sees is as good as random
        together = length[i] * (hi[i] - lo[i] > 1)
        shared[lo[i] + 1] += together
        shared[hi[i]] -= together
        private[hi[i]] += length[i] - together
    num_gaps = 0  # edges between rows that share nothing, the last one included
    for edge in range(1, num_rows + 1):
        shared[edge] += shared[edge - 1]
        private[edge] += private[edge - 1]
        num_gaps += shared[edge] == 0
    if not is_fixed and num_gaps > 1:
        _part_strangers(lo, length, shared, tile_us / masked_us if masked_us > 0 else np.inf, walls)
    begin = _best_begins(shared, private, token_us, masked_us, tile_us, most, walls)
    tiles, row = 0, num_rows
    while row > 0:
        tiles += 1
        row = begin[row]
    edges[tiles], edges[0] = num_rows, 0
    for t in range(tiles, 0, -1):
        edges[t - 1] = begin[edges[t]]
    return tiles


@njit
def _best_begins(shared, private, token_us, masked_us, tile_us, most, walls):  # type: ignore[no-untyped-def]
    """For each end of a tile, where the tile begins in the cheapest cut of all rows before the end.

    A tile [begin, end) costs a unit and what is shared at its end, and if it has several rows what
    is private up to `end`, less that up to `begin`, masked. Of equals the longest tile wins. The
    least of a window that slides is that of its old part, known for every place where the window
    may begin, or of what came since: two comparisons a row, and no branch that could surprise.
    """
    ahead_us = np.zeros(len(walls))  # of the best cut up to an edge, less what is masked there
    begin = np.zeros(len(walls), dtype=np.int64)
    oldest = np.empty(len(walls), dtype=np.int64)  # best start from here to the end of the old part
    wall, old_end = 0, 0
    recent, recent_us = 0, np.inf
    for end in range(1, len(walls)):
        start = end - 1
        wall = start if walls[start] else wall
        is_less = ahead_us[start] < recent_us
        recent = start if is_less else recent
        recent_us = ahead_us[start] if is_less else recent_us
        first = max(wall, end - most)
        if first >= old_end:
            best = start
            for row in range(start, first - 1, -1):
                best = row if ahead_us[row] <= ahead_us[best] else best
                oldest[row] = best
            old_end, recent_us = end, np.inf
        old = oldest[first]
        is_old = ahead_us[old] <= recent_us
        best, least_us = old if is_old else recent, ahead_us[old] if is_old else recent_us
        # a row alone is never masked
        alone_us = ahead_us[start] - (private[end] * masked_us - private[start] * masked_us)
        is_alone = alone_us < least_us
        begin[end] = start if is_alone else best
        ahead_us[end] = (alone_us if is_alone else least_us) + (shared[end] * token_us + tile_us)
    return begin


@njit
def _part_strangers(lo, length, shared, worth, walls):  # type: ignore[no-untyped-def]
    """Walls between trees that share nothing and together read enough to pay for a tile more."""
    num_rows = len(shared) - 1
    tokens = np.zeros(num_rows + 1)  # of the tree that begins at a row
    tree = np.empty(num_rows + 1, dtype=np.int64)
    first = 0
    for row in range(num_rows):
        if shared[row] == 0:
            first = row
        tree[row] = first
    for i in range(len(lo)):
        tokens[tree[lo[i]]] += length[i]
    before = 0
    for row in range(1, num_rows):
        if shared[row] == 0:
            if tokens[before] + tokens[row] >= worth:
                walls[row] = True
            before = row


@njit
def _count_entries(lo, hi, edges, tiles):  # type: ignore[no-untyped-def]
    tile = np.empty(edges[tiles], dtype=np.int32)
    for t in range(tiles):
        tile[edges[t] : edges[t + 1]] = t
    count = 0
    for i in range(len(lo)):
        count += tile[hi[i] - 1] - tile[lo[i]] + 1
    return count


@njit
def _fill_entries(table, num_pieces, position, edges, out, indptr):  # type: ignore[no-untyped-def]
    """Each tile's entries in depth-first order, cut off after the last token a row of it sees."""
    lo, hi = table[LO, :num_pieces], table[HI, :num_pieces]
    length, begins = table[LENGTH, :num_pieces], table[POSITION, :num_pieces]
    # pieces come by rising lo, so those that later tiles see too are a list that shrinks, and grows
    # at its end
    still = np.empty(len(lo), dtype=np.int32)
    num_open, after, count = 0, 0, 0
    indptr[0] = 0
    for t in range(len(indptr) - 1):
        first, end = edges[t], edges[t + 1]
        middle = (first + end + 1) // 2
        kept, j = 0, 0
        while j < num_open or (after < len(lo) and lo[after] < end):
            is_reread = j < num_open
            piece = still[j] if is_reread else after
            after += not is_reread
            j += 1
            # the last row of the tile sees most
            seen = position[min(hi[piece], end) - 1] + 1 - begins[piece]
            out[PIECE, count], out[TOKENS, count] = piece, min(length[piece], seen)
            out[IS_REREAD, count] = is_reread
            out[HALF, count] = (hi[piece] <= middle) + 2 * (lo[piece] >= middle)
            count += 1
            still[kept] = piece
            kept += hi[piece] > end
        num_open = kept
        indptr[t + 1] = count
