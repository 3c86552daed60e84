"""Drafts as nodes of a step's forest, which the token tree never hears of.

Each line of a draft is a node below the tip that it continues. The token tree would make and drop
as many nodes in every step; here they are a few array operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.core.forest import Forest
from ramify.engine.speculation.joint import JointShape, joint_of
from ramify.engine.speculation.shape import DraftShape

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
    joint = joint_of(tuple(graft.shape for graft in grafts))
    tip_rows = np.array([graft.tip_row for graft in grafts])
    return with_drafts(forest, joint, tip_rows, np.concatenate([graft.slots for graft in grafts]))


def with_drafts(forest: Forest, joint: JointShape, tip_rows: IntArray, slots: IntArray) -> Forest:
    """The forest with the rows of drafts after its own.

    Args:
        tip_rows: [D] the row that each draft continues, the last token of its node.
        slots: [n] by the tokens' places.
    """
    num_nodes, num_runs = forest.num_nodes, len(forest.run_begin)
    tips = forest.query_node[tip_rows][joint.line_draft]
    above = np.where(joint.hangs_from_tip, tips, joint.line_above + num_nodes)
    ends, begins, lens = _runs(joint, slots)
    return Forest(
        parent=np.concatenate([forest.parent, above.astype(np.int32)]),
        length=np.concatenate([forest.length, joint.line_len]),
        run_indptr=np.concatenate([forest.run_indptr, ends + num_runs]),
        run_begin=np.concatenate([forest.run_begin, begins]),
        run_len=np.concatenate([forest.run_len, lens]),
        query_node=np.concatenate([forest.query_node, joint.line + num_nodes]),
        query_len=np.concatenate([forest.query_len, joint.seen]),
    )


def _runs(joint: JointShape, slots: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Runs of slots: how many there are up to the end of each line [L], first slots, lengths."""
    breaks = (slots[1:] - slots[:-1] != 1) | joint.is_first
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    if len(starts) == joint.num_lines:
        return np.arange(1, joint.num_lines + 1), slots[starts], joint.line_len
    ends = np.bincount(joint.place_line[starts], minlength=joint.num_lines).cumsum()
    return ends, slots[starts], np.diff(starts, append=len(slots))


def lengthened(forest: Forest, slots: Sequence[IntArray]) -> Forest:
    """The forest after every row's node got tokens, which its row sees as well.

    Each row must be the last token of a node of its own.

    Args:
        slots: [Q] arrays, of at least one slot each: those of the row's new tokens.
    """
    node = forest.query_node
    last = forest.run_indptr[node + 1] - 1
    count = np.array([len(own) for own in slots])
    joined = np.concatenate(slots)
    before = np.cumsum(count) - count
    ahead = joined - (np.arange(len(joined)) - np.repeat(before, count))
    length, run_len = forest.length.copy(), forest.run_len.copy()
    length[node] += count
    query_len = forest.query_len + count
    run_end = forest.run_begin[last] + run_len[last]
    if np.array_equal(ahead, np.repeat(run_end, count)):
        run_len[last] += count
        return replace(forest, length=length, run_len=run_len, query_len=query_len)
    return _with_runs(forest, slots, length, query_len)


def _with_runs(
    forest: Forest, slots: Sequence[IntArray], length: IntArray, query_len: IntArray
) -> Forest:
    """Likewise where slots of some row do not lie right behind its last run."""
    run_len, indptr = forest.run_len.copy(), forest.run_indptr
    where: list[int] = []
    begins: list[int] = []
    lens: list[int] = []
    more = np.zeros_like(indptr)
    for node, own in zip(forest.query_node.tolist(), slots, strict=True):
        starts = np.concatenate([[0], np.flatnonzero(np.diff(own) != 1) + 1])
        begin, size = own[starts].tolist(), np.diff(starts, append=len(own)).tolist()
        last = int(indptr[node + 1]) - 1
        if begin[0] == forest.run_begin[last] + run_len[last]:
            run_len[last] += size.pop(0)
            del begin[0]
        where += [last + 1] * len(begin)
        begins += begin
        lens += size
        more[node + 1] += len(begin)
    return replace(
        forest,
        length=length,
        run_indptr=indptr + np.cumsum(more),
        run_begin=np.insert(forest.run_begin, where, begins),
        run_len=np.insert(run_len, where, lens),
        query_len=query_len,
    )
