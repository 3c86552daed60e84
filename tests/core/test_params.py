"""Parameters refuse what they cannot mean, and say both sides."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ramify.core.errors import InputError
from ramify.core.params import BeamSearchParams, SamplingParams, field_help


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"min_p": 2},
        {"n": 0},
        {"n": 1.5},
        {"max_tokens": 0},
        {"min_tokens": 17},
        {"repetition_penalty": 0},
        {"presence_penalty": 3},
        {"frequency_penalty": math.nan},
        {"stop": 5},
        {"stop": [""]},
        {"stop": ["a", 3]},
        {"stop_token_ids": ["x"]},
        {"stop_token_ids": 3},
        {"logit_bias": [1]},
        {"logit_bias": {1: math.nan}},
        {"seed": -1},
        {"logprobs": -1},
        {"ignore_eos": 1},
    ],
    ids=str,
)
def test_sampling_parameters(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(InputError, match=f"{name}.*expected .*, got "):
        SamplingParams(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"beam_width": 0},
        {"num_return": 5},
        {"early_stopping": "sometimes"},
        {"length_penalty": math.nan},
        {"max_tokens": -3},
    ],
    ids=str,
)
def test_beam_parameters(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(bad))}.*expected .*, got "):
        BeamSearchParams(**bad)


@pytest.mark.parametrize(
    ("stop", "read"), [(None, ()), ("a", ("a",)), (["a", "bc"], ("a", "bc")), ((), ())]
)
def test_stop_strings(stop: Any, read: tuple[str, ...]) -> None:
    assert SamplingParams(stop=stop).stop_strings == read


def test_vocabulary() -> None:
    SamplingParams(stop_token_ids=[9], logit_bias={9: 1.0}, logprobs=10).check_vocabulary(10)
    for bad in ({"stop_token_ids": [10]}, {"logit_bias": {10: 1.0}}, {"logprobs": 11}):
        with pytest.raises(InputError, match="10"):
            SamplingParams(**bad).check_vocabulary(10)


def test_every_field_explains_itself() -> None:
    for params in (SamplingParams, BeamSearchParams):
        assert all(field_help(params).values())
