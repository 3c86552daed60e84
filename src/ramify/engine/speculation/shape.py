"""The shape of a draft tree as arrays, made once per shape: drafters often draft the same one.

Tokens are cut into lines without a fork, since a line is a node of the forest. A line follows the
one it hangs from, and a first child's line follows at once: its slots then follow those as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

ROOT = -1
"""Parent of the tokens that may follow the branch directly, and of their lines."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DraftShape:
    """A tree of n tokens in L lines.

    Attributes:
        children: indices of the tokens below each token and below ROOT, those without left out.
        depth: [n] tokens on the path below the branch, the token included.
        line: [n] the token's line.
        seen: [n] tokens of its own line that the token sees, itself included.
        place: [n] where the token stands when the lines are joined in order.
        line_above: [L] the line that a line hangs from, or ROOT.
        line_len: [L].
        line_end: [L] the last token of each line.
        sibling: [n] the last token before it with the same parent, or ROOT.
        height: tokens of the longest path.
    """

    children: dict[int, tuple[int, ...]]
    depth: IntArray
    line: IntArray
    seen: IntArray
    place: IntArray
    line_above: IntArray
    line_len: IntArray
    line_end: IntArray
    sibling: IntArray
    height: int


@lru_cache(maxsize=256)
def shape_of(parents: tuple[int, ...]) -> DraftShape:
    """The shape in which token i hangs below token `parents[i]`, which comes before it."""
    children = _children(parents)
    lines = _lines(children)
    line, seen, place = (np.empty(len(parents), dtype=np.int64) for _ in range(3))
    depth: list[int] = []
    for parent in parents:
        depth.append(1 if parent == ROOT else depth[parent] + 1)
    begin = 0
    for number, tokens in enumerate(lines):
        line[tokens] = number
        seen[tokens] = np.arange(1, len(tokens) + 1)
        place[tokens] = np.arange(begin, begin + len(tokens))
        begin += len(tokens)
    above = [parents[tokens[0]] for tokens in lines]
    sibling = np.full(len(parents), ROOT, dtype=np.int64)
    for below in children.values():
        sibling[below[1:]] = below[:-1]
    return DraftShape(
        children={parent: tuple(below) for parent, below in children.items()},
        depth=np.array(depth, dtype=np.int64),
        line=line,
        seen=seen,
        place=place,
        line_above=np.array([ROOT if a == ROOT else line[a] for a in above], dtype=np.int64),
        line_len=np.array([len(tokens) for tokens in lines], dtype=np.int64),
        line_end=np.array([tokens[-1] for tokens in lines], dtype=np.int64),
        sibling=sibling,
        height=max(depth, default=0),
    )


def _children(parents: Sequence[int]) -> dict[int, list[int]]:
    below: dict[int, list[int]] = {}
    for index, parent in enumerate(parents):
        below.setdefault(parent, []).append(index)
    return below


def _lines(children: dict[int, list[int]]) -> list[list[int]]:
    """Token indices by line."""
    lines = []
    stack = children.get(ROOT, [])[::-1]
    while stack:
        line = [stack.pop()]
        while len(next_ones := children.get(line[-1], [])) == 1:
            line += next_ones
        lines.append(line)
        stack += next_ones[::-1]
    return lines
