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


class Parts(NamedTuple):
    """The pieces and items of a plan as tables; properties of AttentionPlan name the lines."""

    columns: IntArray  # [7, P or more] slot, length, node, offset, position, lo, hi
    flags: npt.NDArray[np.bool_]  # [2, P or more] causal, open
    items: IntArray  # [4, W + 1 or more] indptr, lo, hi, worker; the last item has an indptr only
    num_pieces: int  # P
    num_items: int  # W


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPlan:
    """W items over P pieces for Q rows. Sized by nodes, rows and blocks; built by `build_plan`."""

    method: str
    why: str  # how the method came to be chosen
    num_nodes: int
    row_order: IntArray  # [Q] user's row of each ordered row
    row_position: IntArray  # [Q] position of each ordered row on its path, -1: sees nothing
    parts: Parts
    names_workers: bool  # items are cut for workers; else any worker may take any
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
        return self.parts.num_items

    @property
    def num_pieces(self) -> int:
        """P."""
        return self.parts.num_pieces

    @property
    def item_indptr(self) -> IntArray:
        """[W + 1], CSR over the pieces."""
        return self.parts.items[0, : self.num_items + 1]

    @property
    def item_lo(self) -> IntArray:
        """[W] first ordered row of each item."""
        return self.parts.items[1, : self.num_items]

    @property
    def item_hi(self) -> IntArray:
        """[W] one past the last ordered row of each item."""
        return self.parts.items[2, : self.num_items]

    @property
    def item_worker(self) -> IntArray | None:
        """[W] who runs an item; None: any worker may take any."""
        return self.parts.items[3, : self.num_items] if self.names_workers else None

    @property
    def piece_slot(self) -> IntArray:
        """[P] first slot."""
        return self.parts.columns[0, : self.num_pieces]

    @property
    def piece_len(self) -> IntArray:
        """[P] slots."""
        return self.parts.columns[1, : self.num_pieces]

    @property
    def piece_node(self) -> IntArray:
        """[P]."""
        return self.parts.columns[2, : self.num_pieces]

    @property
    def piece_offset(self) -> IntArray:
        """[P] first token within the node."""
        return self.parts.columns[3, : self.num_pieces]

    @property
    def piece_position(self) -> IntArray:
        """[P] first token on the path."""
        return self.parts.columns[4, : self.num_pieces]

    @property
    def piece_lo(self) -> IntArray:
        """[P] first ordered row that sees the first token."""
        return self.parts.columns[5, : self.num_pieces]

    @property
    def piece_hi(self) -> IntArray:
        """[P] one past the last ordered row that sees any token."""
        return self.parts.columns[6, : self.num_pieces]

    @property
    def piece_causal(self) -> npt.NDArray[np.bool_]:
        """[P] some row of [lo, hi) sees only a prefix."""
        return self.parts.flags[0, : self.num_pieces]

    @property
    def piece_open(self) -> npt.NDArray[np.bool_]:
        """[P] ends where a node with rows does: grows by appending."""
        return self.parts.flags[1, : self.num_pieces]

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


def plan_of_parts(
    forest: Forest,
    method: str,
    parts: Parts,
    *,
    names_workers: bool = False,
    why: str = "asked for",
) -> AttentionPlan:
    """A plan whose pieces and items are made; see AttentionPlan for the arguments."""
    order = forest.order
    return AttentionPlan(
        method=method,
        why=why,
        num_nodes=forest.num_nodes,
        row_order=forest.row_order,
        row_position=forest.ordered_position,
        parts=parts,
        names_workers=names_workers,
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
    items = np.empty((4, len(item) + 1), dtype=np.int64)
    ranges = row_range or (item[:0], item[:0])
    num_items = _group(table, item, *ranges, forest.ordered_position, flags, items)
    columns = table[:OPEN].astype(np.int64)
    return plan_of_parts(forest, method, Parts(columns, flags, items, len(item), num_items))


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
