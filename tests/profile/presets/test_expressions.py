"""Shapes written as expressions."""

from __future__ import annotations

import pytest

from ramify.core.errors import ConfigError
from ramify.profile.presets.expressions import evaluate

NAMES = {"frames": 49, "height": 480, "latent": "height/8", "config": {"in_channels": 16}}


def test_arithmetic_names_and_config():
    assert evaluate(7, {}) == 7
    assert evaluate("(frames-1)/4+1", NAMES) == 13
    assert evaluate("latent/2*latent", NAMES) == 1800
    assert evaluate("config.in_channels*2", NAMES) == 32


@pytest.mark.parametrize(
    "text", ["frames/4", "frames/0", "width", "config.depth", "height**2", "len(config)", "'a'"]
)
def test_what_is_refused(text):
    with pytest.raises(ConfigError, match="shape"):
        evaluate(text, NAMES)
