"""Mappings and JSON become configs, or errors that name setting and field."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ramify.core.errors import ConfigError
from ramify.core.given import read_given


@dataclass(frozen=True, kw_only=True)
class Lamp:
    watts: int
    name: str = "lamp"


@pytest.mark.parametrize("given", [{"watts": 5}, '{"watts": 5}'], ids=["mapping", "JSON"])
def test_fields_are_taken_over(given: object) -> None:
    assert read_given(given, Lamp, "lamp_config", wanted="a lamp") == Lamp(watts=5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{watts", "lamp_config: expected JSON"),
        ("[5]", "lamp_config: expected a lamp, got '\\[5\\]'"),
        (5, "lamp_config: expected a lamp, got 5"),
        ({"volts": 5}, "lamp_config: expected of watts, name, got 'volts'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_given(given, Lamp, "lamp_config", wanted="a lamp")
