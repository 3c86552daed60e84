"""Rotary frequencies and tables against transformers', in both ways of writing the settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ramify.core.errors import ConfigError
from ramify.models.fields import ConfigFields
from ramify.models.rope import (
    RopeConfig,
    inverse_frequencies,
    parse_rope,
    rotary_table,
    usable_positions,
)

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": LLAMA3,
    "llama3_factor32": LLAMA3 | {"factor": 32.0},
    "yarn": YARN,
    "yarn_attention": YARN | {"attention_factor": 1.25},
    "yarn_mscale": YARN | {"mscale": 0.7, "mscale_all_dim": 1.0},
    "yarn_betas": YARN | {"beta_fast": 24, "beta_slow": 2, "truncate": False},
    "yarn_short": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16},
    "yarn_implied_factor": YARN | {"factor": None},
}
MAX_POSITIONS = 131072


def parse(values: dict[str, Any], max_positions: int = MAX_POSITIONS) -> RopeConfig:
    return parse_rope(ConfigFields(values, source="config.json"), max_positions)


def theirs(theta: float, head_dim: int, settings: dict[str, Any]) -> LlamaRotaryEmbedding:
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_theta": theta} | settings,
    )
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize(("theta", "head_dim"), [(10000.0, 64), (500000.0, 128), (1e6, 16)])
@pytest.mark.parametrize("name", SETTINGS)
def test_frequencies_equal_transformers(name: str, theta: float, head_dim: int) -> None:
    settings = SETTINGS[name]
    rope = parse({"rope_parameters": {"rope_theta": theta} | settings})
    want = theirs(theta, head_dim, settings)
    got = inverse_frequencies(rope, head_dim)
    torch.testing.assert_close(got, want.inv_freq, rtol=3e-7, atol=0.0)
    assert rope.attention_factor == pytest.approx(want.attention_scaling, rel=1e-12)


@pytest.mark.parametrize("name", ["default", "linear", "llama3", "yarn"])
def test_table_equals_transformers_at_far_positions(name: str) -> None:
    settings, head_dim, num_positions = SETTINGS[name], 32, 40000
    rope = parse({"rope_parameters": {"rope_theta": 10000.0} | settings})
    table = rotary_table(rope, head_dim, num_positions, torch.float32, torch.device("cpu"))
    positions = torch.tensor([0, 1, 4095, 32767, num_positions - 1])
    cos, sin = theirs(10000.0, head_dim, settings)(torch.zeros(1), positions[None])
    half = head_dim // 2
    # an angle of 4e4 radians is known to 2e-3 in float32: the very bits of the frequencies matter
    torch.testing.assert_close(table[positions, :half], cos[0, :, :half], rtol=0.0, atol=1e-6)
    torch.testing.assert_close(table[positions, half:], sin[0, :, :half], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_older_spelling_means_the_same(name: str) -> None:
    settings = dict(SETTINGS[name])
    new = parse({"rope_parameters": {"rope_theta": 5e5} | settings})
    assert parse({"rope_theta": 5e5, "rope_scaling": settings}) == new
    settings["type"] = settings.pop("rope_type")
    assert parse({"rope_theta": 5e5, "rope_scaling": settings}) == new


def test_theta_defaults_and_places() -> None:
    assert parse({}).theta == 10000.0
    assert parse({"rope_theta": 5e5}).theta == 5e5
    assert parse({"rope_theta": 5e5, "rope_scaling": None}) == RopeConfig(theta=5e5)
    assert parse({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6}}).theta == 1e6


def test_original_positions_default_and_priority() -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0}
    assert parse({"rope_parameters": yarn}).original_max_positions == MAX_POSITIONS
    both = {"original_max_position_embeddings": 512, "rope_parameters": YARN}
    assert parse(both).original_max_positions == 512


@pytest.mark.parametrize(
    ("settings", "max_positions", "usable"),
    [
        ({"rope_type": "default"}, 4096, 4096),
        ({"rope_type": "linear", "factor": 4.0}, 4096, 16384),
        ({"rope_type": "dynamic", "factor": 4.0}, 4096, 4096),
        (LLAMA3, 131072, 131072),
        (YARN, 32768, 131072),
        (YARN, 131072, 131072),
    ],
)
def test_usable_positions(settings: dict[str, Any], max_positions: int, usable: int) -> None:
    rope = parse({"rope_parameters": settings}, max_positions)
    assert usable_positions(rope, max_positions) == usable


def without(settings: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": (
        {"rope_parameters": {"rope_type": "longrope"}},
        "rope_parameters.rope_type: expected one of default, linear, dynamic, llama3, yarn, "
        "got 'longrope'",
    ),
    "unknown_older": (
        {"rope_scaling": {"type": "su", "factor": 2.0}},
        "rope_scaling.type: expected one of default, .* got 'su'",
    ),
    "type_not_text": ({"rope_parameters": {"rope_type": 3}}, "rope_parameters.rope_type: .* got 3"),
    "not_an_object": ({"rope_scaling": "linear"}, "rope_scaling: expected an object, got 'linear'"),
    "theta": ({"rope_theta": 0}, "rope_theta: expected a finite number > 1, got 0"),
    "theta_text": (
        {"rope_parameters": {"rope_theta": "1e6"}},
        "rope_parameters.rope_theta: expected a finite number > 1, got '1e6'",
    ),
    "linear_factor": (
        {"rope_parameters": {"rope_type": "linear"}},
        "rope_parameters.factor: expected a finite number > 0, got no such field",
    ),
    "dynamic_factor": (
        {"rope_scaling": {"type": "dynamic", "factor": -1.0}},
        "rope_scaling.factor: .* got -1.0",
    ),
    "yarn_factor": ({"rope_parameters": without(YARN, "factor")}, "rope_parameters.factor: "),
    "yarn_beta": ({"rope_parameters": YARN | {"beta_fast": "x"}}, "rope_parameters.beta_fast: "),
    "yarn_truncate": ({"rope_parameters": YARN | {"truncate": 1}}, "rope_parameters.truncate: "),
    "llama3_low": (
        {"rope_parameters": without(LLAMA3, "low_freq_factor")},
        "rope_parameters.low_freq_factor: .* no such field",
    ),
    "llama3_order": (
        {"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}},
        "rope_parameters.high_freq_factor: expected a number > low_freq_factor = 1, got 1.0",
    ),
    "llama3_original": (
        {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 0}},
        "rope_parameters.original_max_position_embeddings: expected an int >= 1, got 0",
    ),
    "per_layer": (
        {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
        "rope_parameters.full_attention: expected one set of settings for all layers",
    ),
    "partial": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: expected 1.0"),
    "partial_nested": (
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        "rope_parameters.partial_rotary_factor: expected 1.0",
    ),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_bad_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^config.json: {message}"):
        parse(values)
