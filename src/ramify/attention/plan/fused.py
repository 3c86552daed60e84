"""fused: row tiles, each with all the KV its rows see, cut into spans of equal cost.

Ordered rows are cut into tiles that fill the matrix units (128 packed rows x query heads), at the
places where the two sides share least. A tile's list holds every piece that one of its rows sees,
depth first: a shared prefix is read once per tile, small nodes stand together and are told apart
by row intervals. Lists are laid end to end and cut stream-K; the rows of an item are only those
that see a piece of it, so leaves that were cut off a long prefix keep few rows and few partials.

Sources: DeFT, Yao et al. 2025 (arXiv 2404.00242), one flat list per group of queries;
LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480), equal spans.
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.pieces import IntArray, Pieces, visible_pieces
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.attention.plan.spans import STEP, Lists, Spans, cut_spans
from ramify.core.forest import Forest
from ramify.core.jit import njit


def plan_fused(
    forest: Forest, heads: HeadShape | None = None, tuning: Tuning | None = None
) -> AttentionPlan:
    """Items of one row tile each, along the line of all lists.

    Args:
        heads: default 32 query and 8 KV heads of 128, 16 bit.
    """
    heads = heads or HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
    tuning = tuning or Tuning()
    pieces = visible_pieces(forest)
    lo, hi = forest.first_row(pieces.node, pieces.offset), forest.row_hi[pieces.node]
    best: tuple[IntArray, Lists, Spans] | None = None
    for packed_rows in _tile_sizes(forest.num_rows * heads.group, tuning):
        edges = row_tiles(forest, pieces, lo, hi, max(1, packed_rows // heads.group), tuning)
        lists = _lists(forest, pieces, lo, hi, edges)
        is_wide = bool((np.diff(edges) * heads.group * 2 > tuning.packed_rows).any())
        spans = cut_spans(lists, tuning, is_wide=is_wide)
        if best is None or spans.predicted_us < best[2].predicted_us:
            best = edges, lists, spans
    assert best is not None
    edges, lists, spans = best
    tile = spans.item_list[spans.item]
    return plan_from_pieces(
        forest,
        "fused",
        spans.pieces(lists, pieces),
        spans.item,
        row_range=(edges[tile], edges[tile + 1]),
        item_worker=spans.item_worker,
    )


def _tile_sizes(packed_rows: int, tuning: Tuning) -> list[int]:
    """Packed rows of a tile to try: half tiles read more, but may fill the workers uncut."""
    whole, half = tuning.packed_rows, tuning.packed_rows // 2
    few = half < packed_rows < 2 * tuning.num_workers * whole
    return [whole, half] if few and tuning.fixed_cuts is None else [whole]


def row_tiles(
    forest: Forest, pieces: Pieces, lo: IntArray, hi: IntArray, most: int, tuning: Tuning
) -> IntArray:
    """[T + 1] edges of the row tiles: the cut that re-reads least, counting tiles as units.

    With fixed cuts no tile holds rows of two trees, so a tree's tiles do not depend on others.

    Args:
        most: rows of a tile.
    """
    costs = tuning.costs
    walls = np.zeros(forest.num_rows + 1, dtype=np.bool_)
    if tuning.fixed_cuts is not None:
        walls[forest.row_lo[forest.parent < 0]] = True
    return _row_tiles(
        forest.num_rows,
        lo,
        hi,
        pieces.length,
        most,
        _exact(costs.reread_us / STEP),
        _exact(costs.masked_part * costs.step_us / STEP),
        _exact(costs.unit_us),
        walls,
        tuning.fixed_cuts is not None,
    )


def _exact(us: float) -> float:
    """On a grid where sums are exact: ties between tiles break alike whatever stands before."""
    return round(us * 2**24) / 2**24


@njit
def _row_tiles(  # type: ignore[no-untyped-def]
    num_rows, lo, hi, length, most, token_us, masked_us, tile_us, walls, is_fixed
):
    shared = np.zeros(num_rows + 1)  # tokens that the rows before and after an edge both see
    private = np.zeros(num_rows + 1)  # tokens that only the row before an edge sees
    for i in range(len(lo)):
        if hi[i] - lo[i] > 1:
            shared[lo[i] + 1] += length[i]
            shared[hi[i]] -= length[i]
        else:
            private[hi[i]] += length[i]
    shared = np.cumsum(shared)
    if not is_fixed:
        _part_strangers(lo, length, shared, tile_us / masked_us if masked_us > 0 else np.inf, walls)
    # private tokens are masked in a tile of several rows: what a tile costs beyond its edge is
    # masked_us * (private[end] - private[start]), with private summed up to each edge
    private = np.cumsum(private) * masked_us
    least = np.zeros(num_rows + 1)
    begin = np.zeros(num_rows + 1, dtype=np.int64)
    # starts that may still begin the best tile, by rising row and cost; of equals the first stays,
    # since longer tiles are fewer tiles
    queue = np.empty(num_rows + 1, dtype=np.int64)
    front = back = 0
    for end in range(1, num_rows + 1):
        start = end - 1
        if walls[start]:
            front = back
        while back > front and (
            least[queue[back - 1]] - private[queue[back - 1]] > least[start] - private[start]
        ):
            back -= 1
        queue[back] = start
        back += 1
        if queue[front] < end - most:
            front += 1
        edge = shared[end] * token_us if end < num_rows else 0.0
        at = queue[front]
        together = least[at] + private[end] - private[at]
        if at == start or least[start] < together:  # a row alone is never masked
            begin[end], least[end] = start, least[start] + tile_us + edge
        else:
            begin[end], least[end] = at, together + tile_us + edge
    edges = np.empty(num_rows + 1, dtype=np.int64)
    count, row = 0, num_rows
    while row > 0:
        edges[count] = row
        count += 1
        row = begin[row]
    edges[count] = 0
    return edges[: count + 1][::-1].copy()


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


def _lists(forest: Forest, pieces: Pieces, lo: IntArray, hi: IntArray, edges: IntArray) -> Lists:
    """Each tile's entries in depth-first order, cut off after the last token a row of it sees."""
    begins = forest.node_start[pieces.node] + pieces.offset
    room = _count_entries(lo, hi, edges)
    columns = np.empty((4, room), dtype=np.int64)
    indptr = np.zeros(len(edges), dtype=np.int64)
    _fill_entries(lo, hi, pieces.length, begins, forest.ordered_position, edges, columns, indptr)
    return Lists(
        indptr=indptr,
        piece=columns[0],
        length=columns[1],
        is_reread=columns[2],
        half=columns[3],
    )


@njit
def _count_entries(lo, hi, edges):  # type: ignore[no-untyped-def]
    tile = np.empty(edges[-1], dtype=np.int64)
    for t in range(len(edges) - 1):
        tile[edges[t] : edges[t + 1]] = t
    count = 0
    for i in range(len(lo)):
        count += tile[hi[i] - 1] - tile[lo[i]] + 1
    return count


@njit
def _fill_entries(lo, hi, length, begins, position, edges, out, indptr):  # type: ignore[no-untyped-def]
    # pieces come by rising lo, so those still open are a list that shrinks, and grows at its end
    still = np.empty(len(lo), dtype=np.int64)
    num_open, after, count = 0, 0, 0
    for t in range(len(edges) - 1):
        first, end = edges[t], edges[t + 1]
        kept = 0
        for j in range(num_open):
            if hi[still[j]] > first:
                still[kept] = still[j]
                kept += 1
        num_open = kept
        while after < len(lo) and lo[after] < end:
            still[num_open] = after
            num_open += 1
            after += 1
        for j in range(num_open):
            piece = still[j]
            # the last row of the tile sees most
            seen = position[min(hi[piece], end) - 1] + 1 - begins[piece]
            out[0, count] = piece
            out[1, count] = min(length[piece], seen)
            out[2, count] = 1 if lo[piece] < first else 0
            middle = (first + end + 1) // 2
            out[3, count] = 1 if hi[piece] <= middle else 2 if lo[piece] >= middle else 0
            count += 1
        indptr[t + 1] = count
