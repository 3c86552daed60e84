"""What a run has drawn comes out as it went in: row by row, from any step on, with its reports."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ramify.engine.drawn_steps import DrawnSteps
from ramify.engine.draws import MOST_TOP, DrawnRows, Report


def test_rows_from_steps_of_their_own() -> None:
    """Against lists: some rows tell alternatives, results lie in arrays that are written over."""
    rng, num_rows, num_top = np.random.default_rng(2), 5, [None, 2, None, 0, 3]
    steps = DrawnSteps(12, num_top)
    tokens, logprobs = np.empty(num_rows, np.int64), np.empty(num_rows, np.float32)
    ranks = np.empty(num_rows, np.int32)
    top = np.empty((num_rows, 2, MOST_TOP), np.int32)
    wanted = defaultdict[int, list[tuple[int, float, int, list[int]]]](list)
    for _ in range(9):
        tokens[:] = rng.integers(0, 2**40, num_rows)
        logprobs[:] = rng.normal(size=num_rows)
        ranks[:] = rng.integers(1, 100, num_rows)
        top[:] = rng.integers(0, 1000, top.shape)
        steps.add(DrawnRows(tokens, logprobs, Report(ranks, top)))
        for row in range(num_rows):
            others = top[row, 0, : num_top[row] or 0].tolist()
            wanted[row].append((int(tokens[row]), float(logprobs[row]), int(ranks[row]), others))
    for rows, begins in (([4, 1, 0], [3, 0, 7]), ([2, 3], [8, 8]), ([0, 4], [9, 2]), ([], [])):
        runs = steps.runs(rows, begins)
        for row, begin, run in zip(rows, begins, runs, strict=True):
            told = wanted[row][begin:]
            assert run.tokens == [token for token, *_ in told]
            assert run.logprobs == [logprob for _, logprob, *_ in told]
            found = [
                (t.token_id, t.logprob, t.rank, [other for other, _ in t.top]) for t in run.reported
            ]
            assert found == ([] if num_top[row] is None else told)
