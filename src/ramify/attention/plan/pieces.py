"""Pieces of the cache: the runs that some row sees, and how to cut them at block edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.core.forest import Forest
from ramify.core.forest_order import GROWS, ORDER, OWN_HI, ROW_HI, ROW_LO, SEEN, SEES, START
from ramify.core.jit import njit

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]


class Pieces(NamedTuple):
    """P contiguous spans of cache slots, each inside one node."""

    slot: IntArray  # [P] first slot
    length: IntArray  # [P] slots, at least 1
    node: IntArray  # [P]
    offset: IntArray  # [P] first token, counted from the start of the node

    def take(self, index: IntArray) -> Pieces:
        """The pieces at `index`, in that order."""
        return Pieces(
            slot=self.slot[index],
            length=self.length[index],
            node=self.node[index],
            offset=self.offset[index],
        )


# lines of `Visible.table`; OPEN is 1 where a piece ends with a node that grows by appending
SLOT, LENGTH, NODE, OFFSET, POSITION, LO, HI, OPEN = range(8)


class Visible(NamedTuple):
    """Pieces and who sees them."""

    table: Int32Array  # [8, P or more], a column for each piece
    num_pieces: int  # P

    @property
    def pieces(self) -> Pieces:
        """The columns without what is known of rows."""
        return Pieces(*self.table[:POSITION, : self.num_pieces].astype(np.int64))

    @property
    def position(self) -> Int32Array:
        """[P] first token on the path."""
        return self.table[POSITION, : self.num_pieces]

    @property
    def lo(self) -> Int32Array:
        """[P] first ordered row that sees the first token."""
        return self.table[LO, : self.num_pieces]

    @property
    def hi(self) -> Int32Array:
        """[P] one past the last ordered row that sees any token."""
        return self.table[HI, : self.num_pieces]


def visible_pieces(forest: Forest) -> Pieces:
    """The pieces of `visible`."""
    return visible(forest).pieces


def visible(forest: Forest) -> Visible:
    """Every token that some row sees, once, as runs in depth-first order. O(nodes + runs)."""
    order, runs = forest.order, (forest.run_indptr, forest.run_begin, forest.run_len)
    table = np.empty((8, len(forest.run_begin)), dtype=np.int32)
    return Visible(table, _list_visible(*runs, forest.length, order.nodes, order.rows, table))


def with_rows(forest: Forest, pieces: Pieces) -> Visible:
    """Given pieces of nodes, and who sees them. O(pieces log rows)."""
    order = forest.order
    table = np.empty((8, len(pieces.node)), dtype=np.int32)
    _find_rows(*pieces, forest.length, order.nodes, order.rows, table)
    return Visible(table, len(pieces.node))


@njit
def _find_rows(slot, length, node, offset, node_len, nodes, rows, out):  # type: ignore[no-untyped-def]
    for i in range(len(node)):
        v = node[i]
        lo, end = nodes[v, ROW_LO], nodes[v, OWN_HI]
        # as a rule the first own row sees the first token, or there is none
        if rows[SEES, lo] > offset[i]:
            end = lo
        while lo < end:
            middle = (lo + end) // 2
            if rows[SEES, middle] > offset[i]:
                end = middle
            else:
                lo = middle + 1
        out[SLOT, i], out[LENGTH, i], out[NODE, i] = slot[i], length[i], v
        out[OFFSET, i], out[POSITION, i] = offset[i], nodes[v, START] + offset[i]
        out[LO, i], out[HI, i] = lo, nodes[v, ROW_HI]
        out[OPEN, i] = nodes[v, GROWS] & (offset[i] + length[i] == node_len[v])


@njit
def _list_visible(run_indptr, run_begin, run_len, node_len, nodes, rows, out):  # type: ignore[no-untyped-def]
    count = 0
    for place in range(len(nodes)):
        node = nodes[place, ORDER]
        offset, lo = 0, nodes[node, ROW_LO]
        for run in range(run_indptr[node], run_indptr[node + 1]):
            length = min(run_len[run], nodes[node, SEEN] - offset)
            if length <= 0:
                continue  # nobody sees the rest, or the run is empty
            # own rows come first by growing length, and some row sees this run: so there is one
            # at lo, and the first of these two questions is the one whose answer hardly varies
            while rows[SEES, lo] <= offset and lo < nodes[node, OWN_HI]:
                lo += 1
            out[SLOT, count], out[LENGTH, count], out[NODE, count] = run_begin[run], length, node
            out[OFFSET, count], out[POSITION, count] = offset, nodes[node, START] + offset
            out[LO, count], out[HI, count] = lo, nodes[node, ROW_HI]
            out[OPEN, count] = nodes[node, GROWS] & (offset + length == node_len[node])
            offset += run_len[run]
            count += 1
    return count


def runs_of_nodes(forest: Forest, nodes: IntArray, limit: IntArray) -> tuple[Pieces, IntArray]:
    """The runs of the first `limit[i]` tokens of `nodes[i]`, in order, and for each its i."""
    room = int((forest.run_indptr[nodes + 1] - forest.run_indptr[nodes]).sum())
    columns = np.empty((5, room), dtype=np.int64)
    count = _list_runs(forest.run_indptr, forest.run_begin, forest.run_len, nodes, limit, columns)
    slot, length, node, offset, source = columns[:, :count]
    return Pieces(slot=slot, length=length, node=node, offset=offset), source


@njit
def _list_runs(run_indptr, run_begin, run_len, nodes, limit, out):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(nodes)):
        offset = 0
        for run in range(run_indptr[nodes[i]], run_indptr[nodes[i] + 1]):
            length = min(run_len[run], limit[i] - offset)
            if length <= 0:
                continue
            out[0, count], out[1, count], out[2, count] = run_begin[run], length, nodes[i]
            out[3, count], out[4, count] = offset, i
            offset += run_len[run]
            count += 1
    return count


def cut_in_blocks(
    pieces: Pieces, start: IntArray, block: int | IntArray
) -> tuple[Pieces, IntArray, IntArray]:
    """Cut pieces wherever a coordinate crosses a multiple of `block`.

    Args:
        start: [P] coordinate of each piece's first token.
        block: one length for all, or [P].
    Returns:
        the smaller pieces, for each the piece it comes from, and for each its block number.
    """
    block = np.broadcast_to(np.asarray(block, dtype=np.int64), start.shape)
    first_block = start // block
    source, within = expand((start + pieces.length - 1) // block - first_block + 1)
    number = first_block[source] + within
    edge = number * block[source]
    begin = np.maximum(start[source], edge)
    end = np.minimum((start + pieces.length)[source], edge + block[source])
    skipped = begin - start[source]
    cut = Pieces(
        slot=pieces.slot[source] + skipped,
        length=end - begin,
        node=pieces.node[source],
        offset=pieces.offset[source] + skipped,
    )
    return cut, source, number


def expand(counts: IntArray) -> tuple[IntArray, IntArray]:
    """For counts [2, 0, 3]: sources [0, 0, 2, 2, 2] and places within [0, 1, 0, 1, 2]."""
    source = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return source, np.arange(len(source)) - begin[source]
