"""Verdicts and the judge's arithmetic."""

from __future__ import annotations

import math

import pytest

from ramify.search.scorer import Judge, Value, as_value

JUDGE = Judge(suffix="?", positive="y", negative="n")


def test_as_value_reads_numbers_and_values() -> None:
    assert as_value(0.25) == Value(score=0.25)
    assert as_value(1) == Value(score=1.0)
    verdict = Value(score=0.5, solved=True)
    assert as_value(verdict) is verdict


@pytest.mark.parametrize(("yes", "no", "value"), [(0.3, 0.1, 0.75), (0.0, 0.2, 0.0), (0.2, 0.0, 1)])
def test_judge_normalises_over_its_labels(yes: float, no: float, value: float) -> None:
    logprobs = [math.log(p) if p else -math.inf for p in (yes, no)]
    assert JUDGE.value(logprobs) == pytest.approx(value)


def test_judge_in_doubt() -> None:
    assert JUDGE.labels == ("y", "n")
    assert JUDGE.value([-math.inf, -math.inf]) == 0.5
    assert JUDGE.value([-800.0, -801.0]) == pytest.approx(1 / (1 + math.exp(-1)))
