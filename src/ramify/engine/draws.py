"""Draws of decode steps that follow one another: by which rules, what they give, and on a CPU how.

The rules of a run of steps are given once, before the first. What they need to know of the tokens
drawn since, positions and counts for penalties, is kept where the draws are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ramify.core.outputs import TokenLogprob
from ramify.engine.sample import History, SampleRow, sample

MOST_TOP = 32
"""Alternatives that a step of a run reports of a draw, at most."""
MOST_EDITS = 1 << 16
"""Bias and bans of tokens over all draws of a run, at most."""
MOST_COUNTED = 1 << 14
"""Tokens behind which a run may start that counts them: it is shorter, and counts are 15 bits."""

Array = TypeVar("Array", Tensor, np.ndarray)


class DrawKind(NamedTuple):
    """What drawing takes beside temperature, filters and noise: a CUDA graph has one kind."""

    is_edited: bool = False  # some draw has penalties, bias or bans
    is_reported: bool = False  # ranks and alternatives are wanted of some draw


PLAIN = DrawKind()


class Report(NamedTuple, Generic[Array]):
    """What is told of draws beside their log-probabilities.

    ranks [rows] int32, from 1; top [rows, 2, MOST_TOP] int32, of the most probable tokens the
    tokens, then the bits of their float32 log-probabilities, as many as the draw's rule asks for.
    """

    ranks: Array
    top: Array


class DrawnRows(NamedTuple, Generic[Array]):
    """A token [rows] int64 of each row, its log-probability [rows] float32, and their report."""

    tokens: Array
    logprobs: Array
    report: Report[Array] | None


@dataclass(frozen=True, slots=True)
class DrawTable:
    """n tokens to draw from n rows of logits; many may be drawn by the rules of one branch.

    rule [n] int64, place in `rules`, whose own rows and positions do not count; position [n] int64,
    absolute, of the token to draw. Draw i is made from row i.
    """

    rules: Sequence[SampleRow]
    rule: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[SampleRow]) -> DrawTable:
        """Draws that each have rules of their own."""
        return cls(rows, np.arange(len(rows)), np.array([row.position for row in rows], np.int64))

    @property
    def kind(self) -> DrawKind:
        """What the rules take."""
        rules = self.rules
        return DrawKind(
            is_edited=any(
                rule.history is not None or rule.params.logit_bias or rule.banned for rule in rules
            ),
            is_reported=any(rule.params.logprobs is not None for rule in rules),
        )

    def rows(self) -> list[SampleRow]:
        """Draw by draw."""
        places = enumerate(zip(self.rule.tolist(), self.position.tolist(), strict=True))
        return [replace(self.rules[rule], row=row, position=at) for row, (rule, at) in places]


class HostDraws:
    """The draws of decode steps that follow one another, on the CPU; see decode_loop.Draws."""

    def __init__(self) -> None:
        self._rows: list[SampleRow] = []

    def fill(self, draws: DrawTable, kind: DrawKind) -> None:
        """Take over how the next step draws."""
        # the books of the branches count these tokens too, but later
        self._rows = [replace(row, history=_copy(row.history)) for row in draws.rows()]

    def draw(self, logits: Tensor, kind: DrawKind) -> DrawnRows[Tensor]:
        """Draw a token from every row; see decode_loop.Draws."""
        drawn = sample(logits, self._rows)
        for row, token in zip(self._rows, drawn, strict=True):
            row.position += 1
            if row.history is not None:
                row.history.generated[token.token_id] += 1
        return DrawnRows(
            torch.tensor([token.token_id for token in drawn]),
            torch.tensor([token.logprob for token in drawn]),
            _report_of(drawn) if kind.is_reported else None,
        )


def may_run_ahead(rows: Sequence[SampleRow]) -> bool:
    """Whether draws without grammars can go on where they are made, the host a step behind."""
    num_edits = sum(len(row.banned) + len(row.params.logit_bias or ()) for row in rows)
    return num_edits <= MOST_EDITS and all(
        (row.params.logprobs or 0) <= MOST_TOP
        and (row.history is None or row.history.generated.total() <= MOST_COUNTED)
        for row in rows
    )


def _copy(history: History | None) -> History | None:
    return history and History(history.prompt, Counter(history.generated))


def _report_of(drawn: Sequence[TokenLogprob]) -> Report[Tensor]:
    top = torch.zeros(len(drawn), 2, MOST_TOP, dtype=torch.int32)
    bits = top.view(torch.float32)
    for row, token in enumerate(drawn):
        for place, (other, logprob) in enumerate(token.top):
            top[row, 0, place] = other
            bits[row, 1, place] = logprob
    return Report(torch.tensor([token.rank for token in drawn], dtype=torch.int32), top)


def alternatives(top: np.ndarray, num_top: int) -> Iterable[tuple[tuple[int, float], ...]]:
    """The first `num_top` most probable tokens with their log-probabilities, row by row.

    Args:
        top: [n, 2, at least num_top] int32, see `Report`.
    """
    tokens = top[:, 0, :num_top].tolist()
    logprobs = top[:, 1, :num_top].view(np.float32).tolist()
    return (tuple(zip(*row, strict=True)) for row in zip(tokens, logprobs, strict=True))
