"""Drafts as nodes of a step's forest, which the token tree never hears of.

Each line of a draft is a node below the tip that it continues. The token tree would make and drop
as many nodes in every step; here they are a few array operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.core.forest import Forest
from ramify.engine.speculation.shape import ROOT, DraftShape

IntArray = npt.NDArray[np.int64]


class Graft(NamedTuple):
    """A draft of n tokens as the rows [first_row, first_row + n) of a step."""

    tip_row: int  # of the token that it continues
    first_row: int
    tokens: tuple[int, ...]
    start: int  # position of what may follow the tip
    shape: DraftShape
    slots: IntArray  # [n] by the tokens' places

    @property
    def positions(self) -> IntArray:
        """[n] absolute positions."""
        return self.start - 1 + self.shape.depth

    @property
    def row_slots(self) -> IntArray:
        """[n] the slot of each row."""
        return self.slots[self.shape.place]

    @property
    def line_rows(self) -> IntArray:
        """[L] the last row of each line."""
        return self.first_row + self.shape.line_end


def grafted(forest: Forest, grafts: Sequence[Graft]) -> Forest:
    """The forest with the rows of `grafts` after its own, in their order.

    Each tip must be the last token of its node.
    """
    if not grafts:
        return forest
    parent, length, run_indptr = [forest.parent], [forest.length], [forest.run_indptr]
    run_begin, run_len = [forest.run_begin], [forest.run_len]
    query_node, query_len = [forest.query_node], [forest.query_len]
    num_nodes, num_runs = forest.num_nodes, len(forest.run_begin)
    for graft in grafts:
        shape, tip = graft.shape, forest.query_node[graft.tip_row]
        above = np.where(shape.line_above == ROOT, tip, shape.line_above + num_nodes)
        ends, begins, lens = _runs(graft)
        parent.append(above.astype(np.int32))
        length.append(shape.line_len)
        run_indptr.append(num_runs + ends)
        run_begin.append(begins)
        run_len.append(lens)
        query_node.append(shape.line + num_nodes)
        query_len.append(shape.seen)
        num_nodes, num_runs = num_nodes + len(above), num_runs + len(begins)
    return Forest(
        parent=np.concatenate(parent),
        length=np.concatenate(length),
        run_indptr=np.concatenate(run_indptr),
        run_begin=np.concatenate(run_begin),
        run_len=np.concatenate(run_len),
        query_node=np.concatenate(query_node),
        query_len=np.concatenate(query_len),
    )


def _runs(graft: Graft) -> tuple[IntArray, IntArray, IntArray]:
    """Runs of slots: how many there are up to the end of each line [L], first slots, lengths."""
    slots, shape = graft.slots, graft.shape
    line = np.repeat(np.arange(len(shape.line_len)), shape.line_len)
    breaks = (np.diff(slots) != 1) | (np.diff(line) != 0)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    ends = np.bincount(line[starts], minlength=len(shape.line_len)).cumsum()
    return ends, slots[starts], np.diff(starts, append=len(slots))
