"""Typed reading of a JSON object: a wrong field is a ConfigError with its name and both sides."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from ramify.core.errors import ConfigError, expected_got


class ConfigFields:
    """A JSON object with typed getters; `null` counts as absent, as it does in transformers.

    `source` names the file in messages, `prefix` the enclosing field ("rope_parameters.").
    """

    def __init__(self, values: Mapping[str, object], *, source: str, prefix: str = "") -> None:
        self.values = values
        self.source = source
        self.prefix = prefix

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def error(self, name: str, expected: object, got: object = None) -> ConfigError:
        """The ConfigError for a field; `got` defaults to the value in the file, or its absence."""
        if got is None:
            got = repr(self.values[name]) if name in self.values else "no such field"
        return ConfigError(f"{self.source}: {expected_got(self.prefix + name, expected, got)}")

    def integer(self, name: str, *, low: int = 1, default: int | None = None) -> int:
        """An int >= low. Without a default the field is required."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.error(name, f"an int >= {low}")
        return value

    def number(self, name: str, *, above: float = 0.0, default: float | None = None) -> float:
        """A finite number > above. Without a default the field is required."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value <= above:  # type: ignore[arg-type, operator]
            raise self.error(name, f"a finite number > {above:g}")
        return float(value)  # type: ignore[arg-type]

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def text(self, name: str, *, default: str | None = None) -> str:
        """A string. Without a default the field is required."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.error(name, "a string")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(name, "a list of strings")
        return tuple(value)

    def section(self, name: str) -> ConfigFields:
        """A nested object (empty when absent), whose fields are reported as `name.field`."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(name, "an object")
        return ConfigFields(value, source=self.source, prefix=f"{self.prefix}{name}.")


def read_json_object(path: Path) -> dict[str, object]:
    """Read a file that must hold one JSON object; ConfigError names the file otherwise."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(expected_got(str(path), "a readable file", reason)) from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise ConfigError(expected_got(str(path), "a JSON object", error)) from error
    if not isinstance(value, dict):
        raise ConfigError(expected_got(str(path), "a JSON object", type(value).__name__))
    return value
