"""How candidates are valued: by a scorer outside the model, or by asking the model itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ramify.core.errors import InputError, expected_got


@dataclass(frozen=True, kw_only=True)
class Value:
    """A scorer's verdict: how good (best in [0, 1]), whether it is the answer, or beyond hope."""

    score: float
    solved: bool = False
    prune: bool = False


class Scorer(Protocol):
    """Values a text. Called once per finished candidate with everything after the prompt."""

    def __call__(self, prompt: str, completion: str) -> Value | float: ...


def as_value(verdict: Value | float) -> Value:
    """Read what a scorer returned; raises InputError unless it is a `Value` or a number."""
    value = verdict if isinstance(verdict, Value) else Value(score=_number(verdict))
    if math.isnan(_number(value.score)):
        raise InputError(expected_got("scorer", "a score that is a number", value.score))
    return value


def _number(score: object) -> float:
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise InputError(expected_got("scorer", "a Value or a number", repr(score)))
    return float(score)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A question the model answers about a state: `suffix` is read after it, then two labels.

    The labels are single tokens. Source: the value prompt of Tree of Thoughts, Yao et al. 2023,
    read from probabilities instead of samples.
    """

    suffix: str
    positive: str
    negative: str

    @property
    def labels(self) -> tuple[str, str]:
        """Both labels, in the order `value` expects their log-probabilities."""
        return self.positive, self.negative

    def value(self, logprobs: Sequence[float]) -> float:
        """P(positive) / (P(positive) + P(negative)); one half when both are impossible."""
        yes, no = logprobs
        top = max(yes, no)
        if top == -math.inf:
            return 0.5
        yes, no = math.exp(yes - top), math.exp(no - top)
        return yes / (yes + no)
