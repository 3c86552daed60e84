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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.pieces import (
    HI,
    LENGTH,
    LO,
    OPEN,
    POSITION,
    IntArray,
    Pieces,
    expand,
    with_rows,
)
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


class Parts(NamedTuple):
    """The pieces and items of a plan; see the fields of the same names there."""

    pieces: IntArray  # [7, P] slot, length, node, offset, position, lo, hi
    flags: npt.NDArray[np.bool_]  # [2, P] causal, open
    items: IntArray  # [3, W + 1] indptr, lo, hi; of the last only indptr counts


def plan_of_parts(
    forest: Forest,
    method: str,
    parts: Parts,
    *,
    item_worker: IntArray | None = None,
    why: str = "asked for",
) -> AttentionPlan:
    """A plan whose pieces and items are made; see AttentionPlan for the arguments."""
    order = forest.order
    slot, length, node, offset, position, lo, hi = parts.pieces
    return AttentionPlan(
        method=method,
        why=why,
        num_nodes=forest.num_nodes,
        row_order=forest.row_order,
        row_position=forest.ordered_position,
        item_indptr=parts.items[0],
        item_lo=parts.items[1, :-1],
        item_hi=parts.items[2, :-1],
        piece_slot=slot,
        piece_len=length,
        piece_node=node,
        piece_offset=offset,
        piece_position=position,
        piece_lo=lo,
        piece_hi=hi,
        piece_causal=parts.flags[0],
        piece_open=parts.flags[1],
        item_worker=item_worker,
        can_grow=order.can_grow,
        unique_tokens=order.unique_tokens,
        path_tokens=order.path_tokens,
        per_branch_tokens=order.per_branch_tokens,
    )


def plan_from_pieces(
    forest: Forest,
    method: str,
    pieces: Pieces,
    item: IntArray,
    *,
    row_range: tuple[IntArray, IntArray] | None = None,
) -> AttentionPlan:
    """Fill in positions and intervals for pieces grouped by rising `item` ids [P].

    Args:
        row_range: by item id the ordered rows [begin, end) that the item serves; default all.
    """
    table = with_rows(forest, pieces).table
    flags = np.empty((2, len(item)), dtype=np.bool_)
    items = np.empty((3, len(item) + 1), dtype=np.int64)
    ranges = row_range or (item[:0], item[:0])
    num_items = _group(table, item, *ranges, forest.ordered_position, flags, items)
    columns = table[:OPEN].astype(np.int64)
    return plan_of_parts(forest, method, Parts(columns, flags, items[:, : num_items + 1]))


@njit
def _group(table, item, range_lo, range_hi, row_position, flags, items):  # type: ignore[no-untyped-def]
    """Limit pieces to the rows of their items; fill flags, and starts and intervals of items.

    Returns the number of items.
    """
    count, least, most = 0, 0, 0
    for i in range(len(item)):
        lo, hi = table[LO, i], table[HI, i]
        if len(range_hi):
            lo, hi = max(lo, range_lo[item[i]]), min(hi, range_hi[item[i]])
            table[LO, i], table[HI, i] = lo, hi
        # own rows come first by growing length, so the first row of the interval sees least
        flags[0, i] = row_position[lo] < table[POSITION, i] + table[LENGTH, i] - 1
        flags[1, i] = table[OPEN, i] != 0
        if i == 0 or item[i] != item[i - 1]:
            items[0, count] = i
            least, most = lo, hi
            count += 1
        least, most = min(least, lo), max(most, hi)
        items[1, count - 1], items[2, count - 1] = least, most
    items[0, count] = len(item)
    return count
