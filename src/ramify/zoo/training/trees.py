"""Training sequences are token trees: one prompt, continuations that cannot see one another.

A tree is laid out in DFS order. Token j is visible to token i when `j <= i < end[j]`; `end[j]`
closes j's subtree: one integer per token is the whole mask. Siblings share positions. The newline
before a line belongs to the line, so that every branch has a label of its own at the fork.

`TreeColumns` builds many trees of one shape at once: every segment is a matrix with one row per
tree, and absent tokens (id PAD) are squeezed out at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramify.zoo.training.vocab import PAD

Ints = NDArray[np.int64]
NO_LABEL = -100

# what a label teaches; losses and accuracies are logged per kind
KINDS = ("puzzle", "judge", "lists", "documents")
PUZZLE, JUDGE, LISTS, DOCUMENTS = range(len(KINDS))


@dataclass(frozen=True, kw_only=True)
class Trees:
    """A flat run of trees, [tokens] each; tree t owns `bounds[t]:bounds[t + 1]`."""

    tokens: Ints
    labels: Ints
    positions: Ints
    ends: Ints  # relative to the start of the tree
    kinds: Ints
    bounds: Ints  # [trees + 1]


@dataclass(frozen=True, kw_only=True)
class _Segment:
    parent: int | None
    tokens: Ints  # [trees, width]
    has_label: NDArray[np.bool_]  # [trees, width]
    tail: Ints  # [trees], the label after the last token
    kind: int


class TreeColumns:
    """Many trees of one shape, grown segment by segment in DFS preorder."""

    def __init__(self, num_trees: int) -> None:
        self.num_trees = num_trees
        self._segments: list[_Segment] = []

    def add(
        self,
        tokens: Ints,
        *,
        parent: int | None = None,
        learn: NDArray[np.bool_] | bool = False,
        tail: Ints | int = PAD,
        kind: int = 0,
    ) -> int:
        """Add a segment below `parent` and return its number.

        Args:
            tokens: [trees, width], PAD where absent; at least one present in each row.
            learn: which tokens have the following token of the segment as their label.
            tail: [trees] label of the last token; PAD for none.
        """
        wide = np.broadcast_to(np.asarray(learn), tokens.shape)
        tails = np.broadcast_to(np.asarray(tail, dtype=np.int64), (self.num_trees,))
        self._segments.append(
            _Segment(parent=parent, tokens=tokens, has_label=wide, tail=tails, kind=kind)
        )
        return len(self._segments) - 1

    def build(self) -> Trees:
        """Squeeze out the absent tokens and number positions and subtree ends."""
        segments = self._segments
        present = np.concatenate([s.tokens != PAD for s in segments], axis=1)
        count = np.concatenate(
            [np.zeros((self.num_trees, 1), np.int64), np.cumsum(present, axis=1)], axis=1
        )
        begin_column = np.cumsum([0] + [s.tokens.shape[1] for s in segments])
        length = np.diff(count[:, begin_column], axis=1)  # [trees, segments]
        base = self._bases(length)
        positions, ends, labels, kinds = [], [], [], []
        for i, s in enumerate(segments):
            begin, end = int(begin_column[i]), int(begin_column[i + 1])
            inside = count[:, begin:end] - count[:, begin : begin + 1]
            positions.append(base[:, i : i + 1] + inside)
            last = count[:, begin_column[self._subtree_end(i)]]
            ends.append(np.repeat(last[:, None], end - begin, axis=1))
            labels.append(_labels(s, inside, length[:, i]))
            kinds.append(np.full(s.tokens.shape, s.kind))
        tokens = [s.tokens for s in segments]
        flat = [
            np.concatenate(part, axis=1)[present]
            for part in (tokens, labels, positions, ends, kinds)
        ]
        bounds = np.concatenate([[0], np.cumsum(count[:, -1])])
        return Trees(
            tokens=flat[0],
            labels=flat[1],
            positions=flat[2],
            ends=flat[3],
            kinds=flat[4],
            bounds=bounds,
        )

    def _bases(self, length: Ints) -> Ints:
        """First position of every segment, [trees, segments]."""
        base = np.zeros_like(length)
        for i, s in enumerate(self._segments):
            if s.parent is not None:
                base[:, i] = base[:, s.parent] + length[:, s.parent]
        return base

    def _subtree_end(self, segment: int) -> int:
        """The number after the last segment below this one."""
        end = segment + 1
        while end < len(self._segments):
            above = self._segments[end].parent
            if above is None or above < segment:
                break
            end += 1
        return end


def _labels(segment: _Segment, inside: Ints, length: Ints) -> Ints:
    """Next present token of the segment where it is learned, the tail on the last token."""
    width = segment.tokens.shape[1]
    following = np.full_like(segment.tokens, PAD)
    nearest = np.full(len(length), PAD)
    for column in range(width - 1, -1, -1):
        following[:, column] = nearest
        nearest = np.where(segment.tokens[:, column] != PAD, segment.tokens[:, column], nearest)
    labels = np.where(segment.has_label & (following != PAD), following, NO_LABEL)
    is_last = (inside == length[:, None] - 1) & (segment.tokens != PAD)
    tail = np.where(segment.tail == PAD, NO_LABEL, segment.tail)[:, None]
    return np.where(is_last, tail, labels)
