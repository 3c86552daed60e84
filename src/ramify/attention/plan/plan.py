"""AttentionPlan: one step's work list as plain data, shared by all layers.

An item is a list of KV pieces and the interval of ordered rows that needs them. Ordered row r
sees token t (at position p on its path) of a piece exactly when

    piece_lo <= r < piece_hi   and   p <= row_position[r]

so a piece carries two row bounds and one position, and no mask. Rows outside the interval of a
piece, but inside the one of its item, skip that piece: an item may span nodes.
Each item yields one partial result per row of its interval; a row with several partials merges
them in item order, which makes results repeat bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.pieces import IntArray, Pieces, expand
from ramify.core.forest import Forest
from ramify.core.jit import njit


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPlan:
    """W items over P pieces for Q rows. Sized by nodes, rows and blocks; built by `build_plan`."""

    method: str
    why: str  # how the method came to be chosen
    num_nodes: int
    row_order: IntArray  # [Q] user's row of each ordered row
    row_position: IntArray  # [Q] position of each ordered row on its path, -1: sees nothing
    item_indptr: IntArray  # [W + 1], CSR over the pieces
    item_lo: IntArray  # [W] first ordered row of each item
    item_hi: IntArray  # [W] one past the last ordered row of each item
    piece_slot: IntArray  # [P] first slot
    piece_len: IntArray  # [P] slots
    piece_node: IntArray  # [P]
    piece_offset: IntArray  # [P] first token within the node
    piece_position: IntArray  # [P] first token on the path
    piece_lo: IntArray  # [P] first ordered row that sees the first token
    piece_hi: IntArray  # [P] one past the last ordered row that sees any token
    piece_causal: npt.NDArray[np.bool_]  # [P] some row of [lo, hi) sees only a prefix
    piece_open: npt.NDArray[np.bool_]  # [P] ends where a node with rows does: grows by appending
    item_worker: IntArray | None  # [W] who runs an item; None: any worker may take any
    can_grow: bool  # every row is the last token of a node of its own, with nothing below
    unique_tokens: int  # tokens that at least one row sees
    path_tokens: int  # sum over rows of the tokens each sees
    per_branch_tokens: int  # tokens read when every branch reads its own path

    @property
    def num_rows(self) -> int:
        """Q."""
        return len(self.row_order)

    @property
    def num_items(self) -> int:
        """W."""
        return len(self.item_indptr) - 1

    @property
    def num_pieces(self) -> int:
        """P."""
        return len(self.piece_slot)

    @cached_property
    def read_tokens(self) -> int:
        """Tokens whose K and V are read, each item reading its pieces once.

        At most per_branch_tokens where each row has a node of its own, as in decoding. Where many
        rows sit at one node, as in a prefill chunk, a GPU takes them a row tile at a time whatever
        the method, and items of fused are row tiles: then at most path_tokens.
        """
        return int(self.piece_len.sum())

    @cached_property
    def end_slot(self) -> int:
        """One past the largest slot read."""
        return int((self.piece_slot + self.piece_len).max(initial=0))

    @cached_property
    def partials_per_row(self) -> IntArray:
        """[Q] items whose interval holds each ordered row."""
        change = np.zeros(self.num_rows + 1, dtype=np.int64)
        np.add.at(change, self.item_lo, 1)
        np.add.at(change, self.item_hi, -1)
        return np.cumsum(change[:-1])

    @cached_property
    def partial_rows(self) -> int:
        """Partial results stored and merged; a row of a single item writes its result directly."""
        count = self.partials_per_row
        return int(count[count > 1].sum())

    @cached_property
    def partial_begin(self) -> IntArray:
        """[W + 1] first partial slot of each item; its row r has slot begin + r - item_lo."""
        return np.append(0, np.cumsum(self.item_hi - self.item_lo))

    @cached_property
    def merge_lists(self) -> tuple[IntArray, IntArray]:
        """CSR over ordered rows: indptr [Q + 1] and the partial slots to merge, in item order."""
        item, within = expand(self.item_hi - self.item_lo)
        row = self.item_lo[item] + within
        slots = np.argsort(row, kind="stable")
        return np.append(0, np.cumsum(self.partials_per_row)), slots


def plan_from_pieces(
    forest: Forest,
    method: str,
    pieces: Pieces,
    item: IntArray,
    *,
    row_range: tuple[IntArray, IntArray] | None = None,
    item_worker: IntArray | None = None,
    why: str = "asked for",
) -> AttentionPlan:
    """Fill in positions and intervals for pieces grouped by rising `item` ids [P].

    Args:
        row_range: by item id the ordered rows [begin, end) that the item serves; default all.
        item_worker: [W], for plans whose items are cut for workers.
        why: how the method came to be chosen.
    """
    order = forest.order
    first_row = forest.first_row(pieces.node, pieces.offset)
    places = np.empty((3, len(item)), dtype=np.int64)
    flags = np.empty((2, len(item)), dtype=np.bool_)
    starts, item_lo, item_hi = items = np.empty((3, len(item) + 1), dtype=np.int64)
    num_items, can_grow, unique, path, per_branch = _place(
        (pieces.node, pieces.offset, pieces.length, item, first_row),
        row_range or (item[:0], item[:0]),
        (order.node_start, order.row_lo, order.row_hi, order.own_hi),
        (order.own_visible_len, order.visible_len, forest.length),
        order.ordered_position,
        places,
        flags,
        items,
    )
    return AttentionPlan(
        method=method,
        why=why,
        num_nodes=forest.num_nodes,
        row_order=order.row_order,
        row_position=order.ordered_position,
        item_indptr=starts[: num_items + 1],
        item_lo=item_lo[:num_items],
        item_hi=item_hi[:num_items],
        piece_slot=pieces.slot,
        piece_len=pieces.length,
        piece_node=pieces.node,
        piece_offset=pieces.offset,
        piece_position=places[0],
        piece_lo=places[1],
        piece_hi=places[2],
        piece_causal=flags[0],
        piece_open=flags[1],
        item_worker=item_worker,
        can_grow=can_grow,
        unique_tokens=unique,
        path_tokens=path,
        per_branch_tokens=per_branch,
    )


@njit
def _place(pieces, row_range, intervals, lengths, row_position, places, flags, items):  # type: ignore[no-untyped-def]
    """Fill positions and intervals of pieces, their flags, and starts and intervals of items.

    Returns the items, whether all rows can grow, and the plan's unique, path and per-branch tokens.
    """
    node, offset, length, item, first_row = pieces
    range_lo, range_hi = row_range
    start, row_lo, row_hi, own_hi = intervals
    own_len, visible_len, node_len = lengths
    count, least, most = 0, 0, 0
    for i in range(len(node)):
        v = node[i]
        lo, hi = first_row[i], row_hi[v]
        if len(range_hi):
            lo, hi = max(lo, range_lo[item[i]]), min(hi, range_hi[item[i]])
        position = start[v] + offset[i]
        places[0, i], places[1, i], places[2, i] = position, lo, hi
        # own rows come first by growing length, so the first row of the interval sees least
        flags[0, i] = row_position[lo] < position + length[i] - 1
        # no branches: which pieces are tips is as good as random
        is_tip = (row_lo[v] < own_hi[v]) & (own_hi[v] == row_hi[v]) & (own_len[v] == node_len[v])
        flags[1, i] = is_tip & (offset[i] + length[i] == node_len[v])
        if i == 0 or item[i] != item[i - 1]:
            items[0, count] = i
            least, most = lo, hi
            count += 1
        least, most = min(least, lo), max(most, hi)
        items[1, count - 1], items[2, count - 1] = least, most
    items[0, count] = len(node)
    # an empty node has no last token, hence no slot that a next one would follow
    alone = unique = per_branch = 0
    for v in range(len(row_lo)):
        is_alone = (row_lo[v] + 1 == own_hi[v]) & (own_hi[v] == row_hi[v])
        alone += is_alone & (own_len[v] == node_len[v]) & (node_len[v] > 0)
        unique += visible_len[v]
        per_branch += (start[v] + own_len[v]) * (own_hi[v] > row_lo[v])
    path = len(row_position)
    for r in range(len(row_position)):
        path += row_position[r]
    return count, alone == len(row_position), unique, path, per_branch


def per_branch_tokens(forest: Forest) -> int:
    """Tokens read when each node with rows reads its whole path once for them."""
    has_rows = forest.own_hi > forest.row_lo
    return int((forest.node_start + forest.own_visible_len)[has_rows].sum())
