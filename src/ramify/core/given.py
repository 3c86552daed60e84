"""Configs as users give them inside a setting: a mapping of their fields, or that as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ramify.core.errors import ConfigError, expected_got

Config = TypeVar("Config")


def read_given(given: object, kind: type[Config], setting: str, *, wanted: str) -> Config:
    """A config of `kind`, a dataclass, from a mapping or JSON.

    Args:
        setting: what it was given as, for errors.
        wanted: what may be given, likewise.
    Raises:
        ConfigError: it is something else, or names a field that the config does not have.
    """
    values = given
    if isinstance(given, str):
        try:
            values = json.loads(given)
        except ValueError as error:
            raise ConfigError(expected_got(setting, "JSON", error)) from error
    if not isinstance(values, Mapping):
        raise ConfigError(expected_got(setting, wanted, repr(given)))
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(expected_got(setting, f"of {', '.join(known)}", repr(name)))
    settings: dict[str, Any] = dict(values)
    return kind(**settings)
