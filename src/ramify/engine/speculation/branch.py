"""What speculation keeps of a branch: its path, the draft of the present step, and its gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.gain import DraftGain


class Path:
    """The tokens of a path that only grows."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._buffer = np.array(tokens, dtype=np.int64)
        self.length = len(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens at the end."""
        end = self.length + len(tokens)
        if end > len(self._buffer):
            self._buffer = np.resize(self._buffer, 2 * end)
        self._buffer[self.length : end] = tokens
        self.length = end

    def view(self) -> np.ndarray:
        """[length] int64, valid until the next `extend`."""
        return self._buffer[: self.length]


@dataclass(slots=True, eq=False)
class Guess:
    """A draft among a step's rows."""

    tree: DraftTree
    first: int  # the first token's row among the step's logits; the others follow


@dataclass(slots=True, eq=False)
class Drafting:
    """A branch's drafts.

    Attributes:
        draft: proposed for the present step; None: nobody was asked.
        guess: the draft among the rows, until the step's tokens are drawn.
        num_kept: tokens of the last guess that were accepted.
        drawn_row: the row among the step's logits that the newest token was drawn from, where it is
            one of the draft's.
    """

    path: Path
    gain: DraftGain = field(default_factory=DraftGain)
    draft: DraftTree | None = None
    guess: Guess | None = None
    num_kept: int = 0
    drawn_row: int | None = None


class _Drafts(Protocol):
    """A task that grows a branch, see request.py, which imports this."""

    @property
    def drafting(self) -> Drafting | None:
        """What speculation keeps of the branch; None: nobody was asked yet."""
        ...


def drafting_of(task: _Drafts) -> Drafting:
    """What speculation keeps of a branch that was asked about."""
    assert task.drafting is not None, "a branch that was asked about has its drafts"
    return task.drafting
