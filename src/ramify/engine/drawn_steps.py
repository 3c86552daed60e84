"""What the steps of a run have drawn, kept until somebody looks: as arrays, but for reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ramify.core.outputs import TokenLogprob
from ramify.engine.draws import DrawnRows, Report, alternatives


class DrawnRun(NamedTuple):
    """Tokens of one branch in the order of steps; `reported` where its parameters ask for it."""

    tokens: list[int]
    logprobs: list[float]
    reported: list[TokenLogprob]


class DrawnSteps:
    """Tokens and log-probabilities of up to `most_steps` steps of the same rows.

    Args:
        num_top: [rows] alternatives that are told of a row's tokens; None: nothing is.
    """

    def __init__(self, most_steps: int, num_top: Sequence[int | None]) -> None:
        shape = (most_steps, len(num_top))
        self._tokens = np.empty(shape, dtype=np.int64)
        self._logprobs = np.empty(shape, dtype=np.float32)
        self._num_top = {row: count for row, count in enumerate(num_top) if count is not None}
        self._reported: dict[int, list[TokenLogprob]] = {row: [] for row in self._num_top}
        self.num_steps = 0

    def add(self, drawn: DrawnRows[np.ndarray]) -> None:
        """Take over what another step has drawn."""
        at = self.num_steps
        self._tokens[at], self._logprobs[at] = drawn.tokens, drawn.logprobs
        if drawn.report is not None:
            self._report(drawn, drawn.report)
        self.num_steps = at + 1

    def runs(self, rows: Sequence[int], begins: Sequence[int]) -> Iterator[DrawnRun]:
        """What each of these rows has drawn from step `begins[i]` on: nearly always the same."""
        first, end = min(begins, default=0), self.num_steps
        tokens, logprobs = (
            array[first:end][:, rows].T.tolist() for array in (self._tokens, self._logprobs)
        )
        for at, (row, begin) in enumerate(zip(rows, begins, strict=True)):
            own, reported = slice(begin - first, None), self._reported.get(row, [])[begin:]
            yield DrawnRun(tokens[at][own], logprobs[at][own], reported)

    def _report(self, drawn: DrawnRows[np.ndarray], report: Report[np.ndarray]) -> None:
        """Make a step's objects now, while the device is busy with the next: they take long."""
        rows = list(self._num_top)
        arrays = (drawn.tokens, drawn.logprobs, report.ranks)
        top = alternatives(report.top[rows], max(self._num_top.values()))
        columns = zip(*(array[rows].tolist() for array in arrays), top, strict=True)
        for (row, count), (token, logprob, rank, others) in zip(
            self._num_top.items(), columns, strict=True
        ):
            self._reported[row].append(
                TokenLogprob(token_id=token, logprob=logprob, rank=rank, top=others[:count])
            )
