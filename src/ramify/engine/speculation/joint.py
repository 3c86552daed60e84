"""The shapes of a step's drafts as one: what does not depend on tokens, slots or lengths.

Drafters often draft the same shapes again, so that a step is left with a few array operations over
all branches at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ramify.engine.speculation.shape import ROOT, DraftShape

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class JointShape:
    """D drafts of n tokens in L lines together, one draft after another.

    Attributes:
        num_tokens, num_lines: n and L.
        draft: [n] the draft of each token.
        depth: [n] as in DraftShape, and so are `seen` [n] and `line_len` [L].
        line: [n] the token's line, counted over all drafts.
        place: [n] where the token stands when all lines are joined in order.
        place_line: [n] the line that stands at each place.
        line_draft: [L] the draft of each line.
        line_above: [L] the line that a line hangs from, counted over all drafts, or ROOT.
        hangs_from_tip: [L] whether that is ROOT.
        is_first: [n - 1] whether place i + 1 begins a line.
    """

    num_tokens: int
    num_lines: int
    draft: IntArray
    depth: IntArray
    seen: IntArray
    line: IntArray
    place: IntArray
    place_line: IntArray
    line_draft: IntArray
    line_len: IntArray
    line_above: IntArray
    hangs_from_tip: npt.NDArray[np.bool_]
    is_first: npt.NDArray[np.bool_]


@lru_cache(maxsize=64)
def joint_of(shapes: tuple[DraftShape, ...]) -> JointShape:
    """The shapes of one or more drafts, joined."""
    sizes = [len(shape.line) for shape in shapes]
    lines = [len(shape.line_len) for shape in shapes]
    tokens_before, lines_before = _before(sizes), _before(lines)
    line_len = np.concatenate([shape.line_len for shape in shapes])
    place_line = np.repeat(np.arange(len(line_len)), line_len)
    above = [
        np.where(shape.line_above == ROOT, ROOT, shape.line_above + before)
        for shape, before in zip(shapes, lines_before, strict=True)
    ]
    line_above = np.concatenate(above)
    return JointShape(
        num_tokens=sum(sizes),
        num_lines=sum(lines),
        draft=np.repeat(np.arange(len(shapes)), sizes),
        depth=np.concatenate([shape.depth for shape in shapes]),
        seen=np.concatenate([shape.seen for shape in shapes]),
        line=_shifted([shape.line for shape in shapes], lines_before),
        place=_shifted([shape.place for shape in shapes], tokens_before),
        place_line=place_line,
        line_draft=np.repeat(np.arange(len(shapes)), lines),
        line_len=line_len,
        line_above=line_above,
        hangs_from_tip=line_above == ROOT,
        is_first=np.diff(place_line) != 0,
    )


def _before(counts: Sequence[int]) -> list[int]:
    ends: list[int] = np.cumsum(counts).tolist()
    return [0, *ends[:-1]]


def _shifted(arrays: Sequence[IntArray], by: Sequence[int]) -> IntArray:
    return np.concatenate([array + shift for array, shift in zip(arrays, by, strict=True)])
