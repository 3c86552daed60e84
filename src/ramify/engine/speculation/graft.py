"""Drafts as nodes of a step's forest, which the token tree never hears of.

Each line of a draft is a node below the tip that it continues. The token tree would make and drop
as many nodes in every step; here they are one pass over arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.core.forest import Forest
from ramify.engine.speculation.graft_loops import graft
from ramify.engine.speculation.joint import JointShape, joint_of
from ramify.engine.speculation.shape import DraftShape

IntArray = npt.NDArray[np.int64]
NO_SLOTS: IntArray = np.empty(0, dtype=np.int64)


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
    joint = joint_of(tuple(one.shape for one in grafts))
    tip_rows = np.array([one.tip_row for one in grafts])
    lent = np.concatenate([one.slots for one in grafts])
    count = np.zeros(forest.num_rows, dtype=np.int64)
    return grown(forest, count, NO_SLOTS, joint, tip_rows, lent)


def grown(
    forest: Forest,
    count: IntArray,
    own: IntArray,
    joint: JointShape,
    tip_rows: IntArray,
    lent: IntArray,
) -> Forest:
    """The forest with longer tips, and with the rows of drafts after its own.

    Rows whose nodes get tokens, or a draft, must each be the last token of a node of its own.

    Args:
        count: [Q] tokens that each row's node gets, which the row sees as well.
        own: [sum of count] their slots.
        tip_rows: [D] the row that each draft continues.
        lent: [n] slots of the drafts, by the tokens' places.
    """
    arrays = graft(
        forest.parent,
        forest.length,
        forest.run_indptr,
        forest.run_begin,
        forest.run_len,
        forest.query_node,
        forest.query_len,
        count,
        own,
        joint.tokens,
        joint.lines,
        tip_rows,
        lent,
    )
    parent, length, run_indptr, run_begin, run_len, query_node, query_len = arrays
    return Forest(
        parent=parent,
        length=length,
        run_indptr=run_indptr,
        run_begin=run_begin,
        run_len=run_len,
        query_node=query_node,
        query_len=query_len,
    )
