"""Sampling: each rule against its definition, and the noise against its distribution."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify import SamplingParams
from ramify.core.seeds import mix64
from ramify.engine.sample import History, SampleRow, sample, token_logprobs

VOCAB = 6
LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -3.0]])


def rows(count: int, **params: Any) -> list[SampleRow]:
    extra = {k: params.pop(k) for k in ("banned", "history", "mask") if k in params}
    return [
        SampleRow(row=0, params=SamplingParams(**params), seed=mix64(i) >> 1, position=7, **extra)
        for i in range(count)
    ]


def frequencies(count: int, **params: Any) -> np.ndarray:
    drawn = Counter(token.token_id for token in sample(LOGITS, rows(count, **params)))
    return np.array([drawn[token] / count for token in range(VOCAB)])


def chi_square(found: np.ndarray, wanted: Tensor, count: int) -> float:
    """Pearson's statistic over the tokens that may occur."""
    allowed = wanted.numpy() > 0
    assert found[~allowed].sum() == 0, "a forbidden token was drawn"
    difference = found[allowed] - wanted.numpy()[allowed]
    return float(count * (difference**2 / wanted.numpy()[allowed]).sum())


def softmax_of(logits: list[float]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64).softmax(-1)


OFF = -torch.inf
CASES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "plain": ({}, [2.0, 1.0, 0.5, 0.0, -1.0, -3.0]),
    "temperature": ({"temperature": 2.0}, [1.0, 0.5, 0.25, 0.0, -0.5, -1.5]),
    "top_k": ({"top_k": 2}, [2.0, 1.0, OFF, OFF, OFF, OFF]),
    # probabilities .56 .21 .13 .08 .03 .004: mass before the third token is .77
    "top_p": ({"top_p": 0.8}, [2.0, 1.0, 0.5, OFF, OFF, OFF]),
    "top_p keeps one": ({"top_p": 0.01}, [2.0, OFF, OFF, OFF, OFF, OFF]),
    "min_p": ({"min_p": 0.2}, [2.0, 1.0, 0.5, OFF, OFF, OFF]),
    "bias": ({"logit_bias": {5: 4.0, 0: -1.0}}, [1.0, 1.0, 0.5, 0.0, -1.0, 1.0]),
    "bans": ({"banned": (0, 1)}, [OFF, OFF, 0.5, 0.0, -1.0, -3.0]),
    "mask": ({"mask": np.array([0b011010], dtype=np.int32)}, [OFF, 1.0, OFF, 0.0, -1.0, OFF]),
    # filters count what the mask leaves
    "mask and top_k": (
        {"mask": np.array([0b111100], dtype=np.int32), "top_k": 2, "logit_bias": {3: 2.0}},
        [OFF, OFF, 0.5, 2.0, OFF, OFF],
    ),
    "repetition": (
        {"repetition_penalty": 2.0, "history": History(frozenset({0}), Counter({4: 3}))},
        [1.0, 1.0, 0.5, 0.0, -2.0, -3.0],
    ),
    "presence and frequency": (
        {
            "presence_penalty": 1.0,
            "frequency_penalty": 0.5,
            "history": History(frozenset({0}), Counter({1: 3, 2: 1})),
        },
        [2.0, -1.5, -1.0, 0.0, -1.0, -3.0],
    ),
}


@pytest.mark.parametrize(("params", "logits"), CASES.values(), ids=CASES)
def test_draws_follow_the_distribution(params: dict[str, Any], logits: list[float]) -> None:
    """Five degrees of freedom at most: the statistic exceeds 25.7 once in ten thousand runs."""
    count = 8000
    assert chi_square(frequencies(count, **params), softmax_of(logits), count) < 25.7


def test_zero_temperature_takes_the_best_after_penalties() -> None:
    (token,) = sample(LOGITS, rows(1, temperature=0.0, logit_bias={3: 9.0}))
    assert token.token_id == 3
    # what is reported is the model's own distribution
    assert token.rank == 4
    assert token.logprob == pytest.approx(LOGITS[0].log_softmax(-1)[3].item(), abs=1e-6)


def test_rows_do_not_disturb_each_other() -> None:
    alone = [sample(LOGITS, [row])[0].token_id for row in rows(50)]
    mixed = sample(
        LOGITS, [x for row in rows(50) for x in (row, *rows(1, temperature=0.0, top_k=1))]
    )
    assert [token.token_id for token in mixed[::2]] == alone


def test_logprobs_ranks_and_alternatives() -> None:
    found = token_logprobs(LOGITS.repeat(2, 1), torch.tensor([2, 0]), [3, None])
    exact = LOGITS[0].log_softmax(-1).tolist()
    assert [t.rank for t in found] == [3, 1]
    assert [t for t, _ in found[0].top] == [0, 1, 2]
    assert [p for _, p in found[0].top] == pytest.approx(exact[:3])
    assert found[1].top == ()
