"""From a plan to the work list of a GPU: units of one row tile and KV list, as packed int32.

An item becomes one unit per row tile (rows x group packed, 16 to 128). Long pieces stay spans of
consecutive slots; pieces shorter than a tile are spelled out as single tokens that a unit gathers,
so index lists grow with the small nodes only. Costly units come first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.pieces import IntArray, expand
from ramify.attention.plan.plan import AttentionPlan
from ramify.core.forest import Forest

Int32Array = npt.NDArray[np.int32]
TILES = (16, 32, 64, 128)  # packed rows of a unit
SPAN_TOKENS = 64  # shorter pieces are gathered token by token
UNIT_OVERHEAD_TOKENS = 64  # start and end of a unit, in tokens it could have read


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkList:
    """Int32 arrays as the kernels read them; see kernels/partial.py."""

    # by packed rows of a tile: [W, 8] row0, rows, piece begin, end, token begin, end, slot, kinds
    units: dict[int, Int32Array]
    pieces: Int32Array  # [P, 8] slot, length, lo, hi, position, causal, 0, 0
    tokens: Int32Array  # [4, T] slot, lo, hi, position
    rows: Int32Array  # [3, Q] user's row, position, number of partials
    merge_indptr: Int32Array  # [Q + 1]
    merge_slots: Int32Array  # [S]
    read_tokens: int  # tokens loaded, counting each row tile's own load

    @property
    def num_slots(self) -> int:
        """S, partial results of one row each."""
        return len(self.merge_slots)


def make_work(
    plan: AttentionPlan, forest: Forest, group: int, *, wide_rows: int = 512, narrowest: int = 16
) -> WorkList:
    """Lower a plan of `forest`.

    Args:
        group: query heads per KV head.
        wide_rows: packed rows from which an item uses tiles of 128.
    """
    item, row0, rows, tile = _row_tiles(plan, group, wide_rows)
    tile = np.maximum(tile, narrowest)
    item_len = np.diff(plan.item_indptr)
    owner = np.repeat(np.arange(plan.num_items), item_len)
    is_span = (plan.piece_len >= SPAN_TOKENS) | (item_len == 1)[owner]
    num_spans = np.append(0, np.cumsum(is_span))[plan.item_indptr]
    num_tokens = np.append(0, np.cumsum(np.where(is_span, 0, plan.piece_len)))[plan.item_indptr]
    item_tokens = np.add.reduceat(plan.piece_len, plan.item_indptr[:-1]) if len(item) else item_len
    units = np.stack(
        [
            row0,
            rows,
            num_spans[item],
            num_spans[item + 1],
            num_tokens[item],
            num_tokens[item + 1],
            plan.partial_begin[item] + row0 - plan.item_lo[item],
            _kinds(plan.partials_per_row == 1, row0, rows),
        ],
        axis=1,
    ).astype(np.int32)
    cost = (item_tokens[item] + UNIT_OVERHEAD_TOKENS) * np.maximum(tile, 64)
    order = np.argsort(-cost, kind="stable")
    units, tile = units[order], tile[order]
    indptr, slots = plan.merge_lists
    return WorkList(
        units={size: units[tile == size] for size in TILES},
        pieces=_spans(plan, np.flatnonzero(is_span)),
        tokens=_tokens(plan, forest, np.flatnonzero(~is_span)),
        rows=np.stack([plan.row_order, plan.row_position, plan.partials_per_row]).astype(np.int32),
        merge_indptr=indptr.astype(np.int32),
        merge_slots=slots.astype(np.int32),
        read_tokens=int(item_tokens[item].sum()),
    )


def _row_tiles(
    plan: AttentionPlan, group: int, wide_rows: int
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Per unit: item, first ordered row, rows, packed rows of its tile."""
    num_rows = plan.item_hi - plan.item_lo
    packed = num_rows * group
    largest = np.where(packed >= wide_rows, TILES[-1], TILES[-2])
    step = np.maximum(1, largest // group)
    item, within = expand(-(-num_rows // step))
    row0 = plan.item_lo[item] + within * step[item]
    rows = np.minimum(step[item], plan.item_hi[item] - row0)
    # the last tile of an item takes the smallest size that holds it
    tile = np.asarray(TILES)[np.searchsorted(TILES[:-1], rows * group)]
    return item, row0, rows, tile


def _kinds(is_alone: npt.NDArray[np.bool_], row0: IntArray, rows: IntArray) -> IntArray:
    """Per unit: 1 if it has rows that no other item touches, plus 2 if it has others."""
    before = np.append(0, np.cumsum(is_alone))
    alone = before[row0 + rows] - before[row0]
    return (alone > 0) + 2 * (alone < rows)


def _spans(plan: AttentionPlan, index: IntArray) -> Int32Array:
    none = np.zeros(len(index), dtype=np.int64)
    columns = [
        plan.piece_slot[index],
        plan.piece_len[index],
        plan.piece_lo[index],
        plan.piece_hi[index],
        plan.piece_position[index],
        plan.piece_causal[index],
        none,
        none,
    ]
    return np.stack(columns, axis=1).astype(np.int32)


def _tokens(plan: AttentionPlan, forest: Forest, index: IntArray) -> Int32Array:
    """Every token of the short pieces with the exact rows that see it."""
    length = plan.piece_len[index]
    before = np.cumsum(length) - length
    place = np.arange(int(length.sum()), dtype=np.int32)
    tokens = np.empty((4, len(place)), dtype=np.int32)
    tokens[0] = _repeated(plan.piece_slot[index] - before, length) + place
    tokens[1] = _repeated(plan.piece_lo[index], length)
    tokens[2] = _repeated(plan.piece_hi[index], length)
    tokens[3] = _repeated(plan.piece_position[index] - before, length) + place
    if plan.piece_causal[index].any():
        late = np.flatnonzero(np.repeat(plan.piece_causal[index], length))
        piece = np.repeat(index, length)[late]
        offset = plan.piece_offset[piece] + tokens[3, late] - plan.piece_position[piece]
        first = forest.first_row(plan.piece_node[piece], offset)
        tokens[1, late] = np.maximum(tokens[1, late], first)
    return tokens


def _repeated(values: IntArray, counts: IntArray) -> Int32Array:
    return np.repeat(values.astype(np.int32), counts)
