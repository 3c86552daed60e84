"""Structured output: what generated text must look like; a frozen dataclass, checked when made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ramify.core.errors import InputError, expected_got

KINDS = ("json_schema", "regex", "choices", "grammar")
"""The fields of which one is given."""


@dataclass(frozen=True, kw_only=True)
class StructuredOutput:
    """What every branch must generate: exactly one of the first four fields.

    A branch whose text is complete, so that nothing may follow, ends with finish reason "stop". One
    that reaches `max_tokens` before ends with "length", and its text is the beginning of a legal
    one. Whether llguidance can read a grammar, and whether the model's vocabulary can write it, is
    checked when a request is made, before anything runs.

    Attributes:
        json_schema: a JSON schema, as a dict or as JSON; kept as JSON.
        regex: the whole text matches it. Syntax of Rust's regex: no look-around, no references.
        choices: the text is one of these strings.
        grammar: a context-free grammar in llguidance's variant of Lark; its first rule is `start`.
        whitespace_pattern: of a JSON schema: a regex of what may stand between the tokens of JSON,
            or nothing; "" always is nothing. By default it is one space: white space without end
            is legal JSON, and what small models like to write.

    Raises:
        InputError: none or several are given, or one is malformed; the field is named.
    """

    json_schema: Mapping[str, Any] | str | None = None
    regex: str | None = None
    choices: Sequence[str] | None = None
    grammar: str | None = None
    whitespace_pattern: str = " "

    def __post_init__(self) -> None:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise InputError(expected_got("structured", f"exactly one of {', '.join(KINDS)}", got))
        if self.json_schema is not None:
            object.__setattr__(self, "json_schema", _schema(self.json_schema))
        if self.choices is not None:
            object.__setattr__(self, "choices", _choices(self.choices))
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise InputError(
                    expected_got(f"structured.{name}", "a non-empty string", repr(value))
                )
        if not isinstance(self.whitespace_pattern, str):
            got = repr(self.whitespace_pattern)
            raise InputError(expected_got("structured.whitespace_pattern", "a regex", got))

    @property
    def kind(self) -> str:
        """The name of the field that is given."""
        return next(name for name in KINDS if getattr(self, name) is not None)


def check_structured(value: object) -> None:
    """Raise InputError unless a parameter's value is a StructuredOutput or None."""
    if value is not None and not isinstance(value, StructuredOutput):
        names = ", ".join(f"{f.name}=..." for f in fields(StructuredOutput)[: len(KINDS)])
        wanted = f"StructuredOutput with one of {names}"
        raise InputError(expected_got("structured", wanted, repr(value)))


def _schema(value: object) -> str:
    """The schema as JSON: its properties keep their order, which is that of the text."""
    wanted = "a JSON schema, as a dict or as JSON of an object"
    if isinstance(value, Mapping):
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(expected_got("structured.json_schema", wanted, error)) from error
    try:
        parsed = json.loads(value) if isinstance(value, str) else None
    except ValueError as error:
        got = f"text that is no JSON ({error})"
        raise InputError(expected_got("structured.json_schema", wanted, got)) from error
    if not isinstance(parsed, dict):
        raise InputError(expected_got("structured.json_schema", wanted, repr(value)))
    return json.dumps(parsed)


def _choices(value: object) -> tuple[str, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not value or not all(isinstance(s, str) and s for s in value):  # type: ignore[attr-defined]
        wanted = "a non-empty list of non-empty strings"
        raise InputError(expected_got("structured.choices", wanted, repr(value)))
    return tuple(dict.fromkeys(value))  # type: ignore[call-overload]
