"""What every task family offers: problems, an exact check of a text, a check of an unfinished one.

Tasks speak text only. They know no tokenizer and no torch, so checkers run anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem: the prompt a model reads and one right answer (others may be right too)."""

    task: str
    prompt: str
    answer: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a checker found.

    `solved`: the text is a complete right answer. `score`: 0 to 1, 1 only when solved (for a
    partial check: the share of the way that was legal). `legal`: nothing written so far breaks a
    rule; False means that no continuation can repair it.
    """

    solved: bool
    score: float
    reason: str
    legal: bool = True


class Task(Protocol):
    """One family of problems. Every object in `TASKS` has this shape."""

    name: str
    max_tokens: int

    def generate(self, rng: np.random.Generator, *, heldout: bool = False, **shape: int) -> Problem:
        """Draw a problem; `heldout` draws from the part of the space that training never sees."""
        ...

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judge a finished answer exactly."""
        ...

    def check_partial(self, problem: Problem, text: str) -> Verdict:
        """Judge what is written so far by the rules alone, without looking ahead."""
        ...


def illegal(reason: str) -> Verdict:
    """The verdict on a text that breaks a rule."""
    return Verdict(solved=False, score=0.0, reason=reason, legal=False)


def unfinished(score: float, reason: str) -> Verdict:
    """The verdict on a text that is legal but not (yet) a right answer."""
    return Verdict(solved=False, score=score, reason=reason)


def solved(reason: str) -> Verdict:
    """The verdict on a right answer."""
    return Verdict(solved=True, score=1.0, reason=reason)
