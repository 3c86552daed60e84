"""Settings of a reward model: what is read, and what is named when it is wrong."""

from __future__ import annotations

import json

import pytest

from ramify import ConfigError, EngineConfig
from ramify.core.reward import RewardConfig


def test_a_mapping_its_json_and_a_name_are_the_config_they_describe() -> None:
    given = {"model": "some/judge", "labels": ["yes", "no"], "suffix": "?", "kv_share": 0.25}
    wanted = RewardConfig(model="some/judge", labels=("yes", "no"), suffix="?", kv_share=0.25)
    assert EngineConfig(reward_model=given).reward_model == wanted
    assert EngineConfig(reward_model=json.dumps(given)).reward_model == wanted
    assert EngineConfig(reward_model="some/judge").reward_model == RewardConfig(model="some/judge")
    assert EngineConfig().reward_model is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "reward_model: expected a model, a head, or both, got neither"),
        ({"name": "x"}, "reward_model: expected of model, .* got 'name'"),
        ({"model": "x", "labels": ["a"]}, "labels: expected two tokens"),
        ({"model": "x", "labels": "ab"}, "labels: expected two tokens"),
        ({"head": "x", "labels": ["a", "b"]}, "labels: expected a model without a head"),
        ({"head": "x", "activation": "tanh"}, "activation: expected one of auto, sigmoid"),
        ({"model": "x", "kv_share": 1.0}, r"kv_share: expected a number in \(0, 1\), got 1.0"),
        ("{", "reward_model: expected JSON"),
        (["x"], "reward_model: expected a RewardConfig, a mapping of its fields, or a model"),
    ],
)
def test_a_wrong_setting_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig(reward_model=given)
