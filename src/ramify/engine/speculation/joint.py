"""The shapes of a step's drafts as one: what does not depend on tokens, slots or lengths.

Drafters often draft the same shapes again, so that a step is left with a few array operations over
all branches at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.engine.speculation.graft_loops import DEPTH, DRAFT, PLACE
from ramify.engine.speculation.shape import ROOT, DraftShape

IntArray = npt.NDArray[np.int64]


class JointShape(NamedTuple):
    """D drafts of n tokens in L lines together, one draft after another.

    Attributes:
        tokens: [5, n] of each token: its draft, its depth, the tokens of its own line that it sees,
            its line, and its place when all lines are joined in order.
        lines: [3, L] of each line: its draft, its tokens, and the line it hangs from or ROOT.
    """

    tokens: IntArray
    lines: IntArray

    @property
    def draft(self) -> IntArray:
        """[n]."""
        return self.tokens[DRAFT]

    @property
    def depth(self) -> IntArray:
        """[n] tokens on the path below the branch, the token included."""
        return self.tokens[DEPTH]

    @property
    def place(self) -> IntArray:
        """[n]."""
        return self.tokens[PLACE]


@lru_cache(maxsize=64)
def joint_of(shapes: tuple[DraftShape, ...]) -> JointShape:
    """The shapes of some drafts, joined."""
    if not shapes:
        return JointShape(np.empty((5, 0), dtype=np.int64), np.empty((3, 0), dtype=np.int64))
    sizes = [len(shape.line) for shape in shapes]
    lines = [len(shape.line_len) for shape in shapes]
    tokens_before, lines_before = _before(sizes), _before(lines)
    above = [
        np.where(shape.line_above == ROOT, ROOT, shape.line_above + before)
        for shape, before in zip(shapes, lines_before, strict=True)
    ]
    return JointShape(
        tokens=np.stack(
            [
                np.repeat(np.arange(len(shapes)), sizes),
                np.concatenate([shape.depth for shape in shapes]),
                np.concatenate([shape.seen for shape in shapes]),
                _shifted([shape.line for shape in shapes], lines_before),
                _shifted([shape.place for shape in shapes], tokens_before),
            ]
        ),
        lines=np.stack(
            [
                np.repeat(np.arange(len(shapes)), lines),
                np.concatenate([shape.line_len for shape in shapes]),
                np.concatenate(above),
            ]
        ),
    )


def _before(counts: Sequence[int]) -> list[int]:
    ends: list[int] = np.cumsum(counts).tolist()
    return [0, *ends[:-1]]


def _shifted(arrays: Sequence[IntArray], by: Sequence[int]) -> IntArray:
    return np.concatenate([array + shift for array, shift in zip(arrays, by, strict=True)])
