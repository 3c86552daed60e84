"""What the steps of a run have drawn, kept as arrays until somebody looks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ramify.core.outputs import TokenLogprob
from ramify.engine.draws import DrawnRows, alternatives


class DrawnRun(NamedTuple):
    """Tokens of one branch in the order of steps; `reported` where its parameters ask for it."""

    tokens: list[int]
    logprobs: list[float]
    reported: list[TokenLogprob]


class DrawnSteps:
    """Tokens and log-probabilities of up to `most_steps` steps of the same rows.

    Args:
        num_top: most alternatives of a row; None: no row's tokens are reported.
    """

    def __init__(self, most_steps: int, num_rows: int, num_top: int | None) -> None:
        shape = (most_steps, num_rows)
        self._tokens = np.empty(shape, dtype=np.int64)
        self._logprobs = np.empty(shape, dtype=np.float32)
        reported = (0, num_rows) if num_top is None else shape
        self._ranks = np.empty(reported, dtype=np.int32)
        self._top = np.empty((*reported, 2, num_top or 0), dtype=np.int32)
        self.num_steps = 0

    def add(self, drawn: DrawnRows[np.ndarray]) -> None:
        """Take over what another step has drawn."""
        at = self.num_steps
        self._tokens[at], self._logprobs[at] = drawn.tokens, drawn.logprobs
        if drawn.report is not None:
            self._ranks[at] = drawn.report.ranks
            self._top[at] = drawn.report.top[:, :, : self._top.shape[-1]]
        self.num_steps += 1

    def run(self, row: int, begin: int, num_top: int | None) -> DrawnRun:
        """What a row has drawn from step `begin` on, reported with `num_top` alternatives."""
        span = slice(begin, self.num_steps)
        tokens, logprobs = self._tokens[span, row].tolist(), self._logprobs[span, row].tolist()
        if num_top is None:
            return DrawnRun(tokens, logprobs, [])
        ranks, top = self._ranks[span, row].tolist(), alternatives(self._top[span, row], num_top)
        columns = zip(tokens, logprobs, ranks, top, strict=True)
        reported = [
            TokenLogprob(token_id=token, logprob=logprob, rank=rank, top=others)
            for token, logprob, rank, others in columns
        ]
        return DrawnRun(tokens, logprobs, reported)
