"""fused: every run either read once for all its rows, or with its short neighbours per row tile.

One float32 partial result of a row costs as much traffic as 2 * itemsize-weighted G KV tokens, so
on deep trees partials outweigh KV. Ordered rows are therefore cut into tiles of R rows, and a run

    separate   is an item of its own for all its rows (cut along KV), one more partial for each, or
    bundled    joins the item of every row tile that it meets: several small nodes and their rows
               in one masked tile (no partial at all), short parents re-read by a few tiles

whichever moves fewer bytes. Items are cut along KV towards equal cost, as many as keep the grid
busy; nothing is cut per token. R is the one of a few whose predicted time is least.

Sources: DeFT, Yao et al. 2025 (arXiv 2404.00242), masked blocks over nodes; FastTree, Pan et al.
2025, re-reading a short parent; LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480), equal cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.pieces import (
    IntArray,
    Pieces,
    cut_in_blocks,
    expand,
    visible_pieces,
)
from ramify.attention.plan.plan import AttentionPlan, plan_from_pieces
from ramify.core.forest import Forest


@dataclass(frozen=True, kw_only=True)
class FusedTuning:
    """What the planner knows of the device; tokens mean K and V of one token and KV head."""

    num_sms: int = 132
    units_per_sm: tuple[int, ...] = (4, 4, 2)  # resident at once, for 16, 32 and 64 packed rows
    waves: int = 4  # units per slot where there is work enough
    full_unit_tokens: int = 1536  # a unit this long is worth a wave of its own
    min_unit_tokens: int = 256  # units are not cut shorter than this while every SM has one,
    idle_unit_tokens: int = 128  # and otherwise not shorter than this
    unit_overhead_tokens: int = 128  # start and end of a unit, in tokens it could have read
    reread_weight: float = 0.5  # a byte from L2 against one from memory
    partial_weight: float = 1.0  # likewise for a byte of a partial result


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The choice for one R."""

    rows: int  # R
    separate: npt.NDArray[np.bool_]  # [P]
    unit_tokens: int
    cost: float


def plan_fused(
    forest: Forest, heads: HeadShape | None = None, tuning: FusedTuning | None = None
) -> AttentionPlan:
    """Separate runs first, then the bundles of the row tiles in row order.

    Args:
        heads: default 32 query and 8 KV heads of 128, 16 bit.
    """
    heads = heads or HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
    tuning = tuning or FusedTuning()
    pieces = visible_pieces(forest)
    lo, hi = forest.first_row(pieces.node, pieces.offset), forest.row_hi[pieces.node]
    # judged by node, so that the runs of one node stay together
    first, last = forest.row_lo[pieces.node], hi
    length = forest.visible_len[pieces.node]
    tips = _tips_below(forest)[pieces.node]
    splits = [
        _split(rows, first, last, length, pieces.length, tips, heads, tuning)
        for rows in _row_tiles(heads.group)
    ]
    best = min(splits, key=lambda split: split.cost)
    alone, bundled = np.flatnonzero(best.separate), np.flatnonzero(~best.separate)
    parts = [
        _separate(pieces.take(alone), length[alone], best.unit_tokens),
        _bundles(forest, pieces.take(bundled), lo[bundled], hi[bundled], best),
    ]
    return _joined(forest, parts)


def _row_tiles(group: int) -> list[int]:
    """Candidate rows per bundle: what fills 16, 32 and 64 packed rows, and one row."""
    return sorted({max(1, tile // group) for tile in (1, 16, 32, 64)})


def _tips_below(forest: Forest) -> IntArray:
    """[N] nodes with rows at each node or below it."""
    has_rows = (forest.own_hi > forest.row_lo)[forest.node_order]
    before = np.append(0, np.cumsum(has_rows))
    # nodes of a subtree are neighbours in preorder, and their rows end where the subtree's do
    rank_of_row = forest.node_rank[forest.query_node][forest.row_order]
    ends = np.append(-1, rank_of_row)[forest.row_hi] + 1
    below = before[np.maximum(ends, forest.node_rank)] - before[forest.node_rank]
    return np.asarray(below, dtype=np.int64)


def _split(
    rows: int,
    lo: IntArray,
    hi: IntArray,
    node_len: IntArray,
    piece_len: IntArray,
    tips: IntArray,
    heads: HeadShape,
    tuning: FusedTuning,
) -> _Split:
    """Which runs to separate for tiles of `rows` rows, and what that is predicted to cost."""
    num_tiles = (hi - 1) // rows - lo // rows + 1
    # written and read once, in tokens
    partial = 2 * heads.partial_bytes / heads.token_bytes * tuning.partial_weight
    reread = (num_tiles - 1) * node_len * tuning.reread_weight
    # beyond one read per branch, a re-read is never worth it
    separate = (reread > partial * (hi - lo)) | (num_tiles > tips)
    wide = np.maximum(1, -(-(hi - lo) * heads.group // 64))
    units = np.where(separate, wide, num_tiles)
    tokens = float((units * piece_len).sum()) * heads.num_kv_heads
    # sized for the tiles that read most
    in_bundles = float((num_tiles * piece_len)[~separate].sum()) * heads.num_kv_heads
    packed = rows * heads.group if in_bundles > tokens / 2 else 64
    per_sm = tuning.units_per_sm[int(np.searchsorted((16, 32), min(packed, 64)))]
    unit = _unit_tokens(tokens, tuning.num_sms * per_sm, tuning)
    rereads = float(((units - 1) * piece_len).sum()) * heads.num_kv_heads * tuning.reread_weight
    unique = float(piece_len.sum()) * heads.num_kv_heads
    results = float((partial * (hi - lo) * separate).sum()) * heads.num_kv_heads
    bundle_tokens = in_bundles / heads.num_kv_heads
    # every row tile with a bundle is a unit at least
    num_bundles = min(bundle_tokens, max(-(-int(hi.max(initial=0)) // rows), bundle_tokens / unit))
    num_units = (units * -(-piece_len // unit))[separate].sum() + num_bundles
    overhead = float(num_units) * heads.num_kv_heads * tuning.unit_overhead_tokens
    # tiles of 64 rows keep the matrix units about as busy as the memory, narrower ones less
    dense = 1.0 + 0.5 * (rows * heads.group > 32)
    bundled = in_bundles * (dense - 1.0)
    cost = unique + rereads + results + overhead + bundled
    return _Split(rows=rows, separate=separate, unit_tokens=unit, cost=cost)


def _unit_tokens(tokens: float, slots: int, tuning: FusedTuning) -> int:
    """Tokens per unit: several waves of long units, or one wave of equal ones."""
    for waves in range(tuning.waves, 0, -1):
        unit = tokens / (slots * waves)
        if unit >= tuning.full_unit_tokens or waves == 1:
            break
    busy = tokens / tuning.min_unit_tokens >= 0.9 * tuning.num_sms
    least = tuning.min_unit_tokens if busy else tuning.idle_unit_tokens
    return max(least, -(-int(unit + 1) // 64) * 64)


_Cut = tuple[Pieces, IntArray, IntArray, IntArray]  # pieces, item id, row range


def _separate(pieces: Pieces, node_len: IntArray, unit_tokens: int) -> _Cut:
    """Items of one node each, its tokens cut into equal blocks."""
    blocks = np.maximum(1, (node_len + unit_tokens // 2) // unit_tokens)
    block = -(-node_len // blocks)
    block = np.where(blocks > 1, -(-block // 16) * 16, block)
    cut, source, number = cut_in_blocks(pieces, pieces.offset, block)
    changes = (np.diff(cut.node, prepend=-1) != 0) | (np.diff(number, prepend=-1) != 0)
    every = np.zeros_like(source)
    return cut, np.cumsum(changes) - 1, every, every + np.iinfo(np.int64).max


def _bundles(forest: Forest, pieces: Pieces, lo: IntArray, hi: IntArray, split: _Split) -> _Cut:
    """Items of one row tile each: all bundled pieces it meets, cut along KV into equal blocks."""
    first = lo // split.rows
    source, within = expand((hi - 1) // split.rows - first + 1)
    tile = first[source] + within
    order = np.argsort(tile, kind="stable")
    source, tile = source[order], tile[order]
    listed = _as_seen(forest, pieces.take(source), np.minimum(hi[source], (tile + 1) * split.rows))
    new = np.diff(tile, prepend=-1) != 0
    index = np.cumsum(new) - 1
    before = np.cumsum(listed.length) - listed.length
    start = before - before[new][index]
    total = np.bincount(index, weights=listed.length).astype(np.int64)[index]
    blocks = np.maximum(1, (total + split.unit_tokens // 2) // split.unit_tokens)
    block = (total + blocks - 1) // blocks
    block = (block + 15) // 16 * 16
    cut, again, number = cut_in_blocks(listed, start, block)
    tile = tile[again]
    changes = (np.diff(tile, prepend=-1) != 0) | (np.diff(number, prepend=-1) != 0)
    return cut, np.cumsum(changes) - 1, tile * split.rows, (tile + 1) * split.rows


def _as_seen(forest: Forest, pieces: Pieces, row_end: IntArray) -> Pieces:
    """Pieces cut off after the last token that rows before `row_end` see: the last sees most."""
    position = forest.row_position[forest.row_order][row_end - 1]
    seen = position + 1 - forest.node_start[pieces.node] - pieces.offset
    return replace(pieces, length=np.minimum(pieces.length, seen))


def _joined(forest: Forest, parts: list[_Cut]) -> AttentionPlan:
    """One plan of the items of all parts."""
    pieces = Pieces(
        slot=np.concatenate([part[0].slot for part in parts]),
        length=np.concatenate([part[0].length for part in parts]),
        node=np.concatenate([part[0].node for part in parts]),
        offset=np.concatenate([part[0].offset for part in parts]),
    )
    num_items = np.cumsum([0] + [int(part[1][-1]) + 1 if len(part[1]) else 0 for part in parts])
    item = np.concatenate(
        [part[1] + base for part, base in zip(parts, num_items[:-1], strict=True)]
    )
    row_range = (
        np.concatenate([part[2] for part in parts]),
        np.concatenate([part[3] for part in parts]),
    )
    return plan_from_pieces(forest, "fused", pieces, item, row_range=row_range)
