"""What output shall look like: what is read, and what is refused with both sides named."""

from __future__ import annotations

from typing import Any

import pytest

from ramify import BeamSearchParams, InputError, SamplingParams, StructuredOutput


def test_a_schema_and_its_json_are_the_same() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}}
    text = '{"type":"object", "properties": {"b":{"type":"null"},\n"a":{"type":"null"}}}'
    given, read = StructuredOutput(json_schema=schema), StructuredOutput(json_schema=text)
    assert given == read and hash(given) == hash(read)
    assert str(given.json_schema).index('"b"') < str(given.json_schema).index('"a"')
    assert given != StructuredOutput(json_schema=schema, whitespace_pattern="")


def test_choices_lose_doubles_and_keep_their_order() -> None:
    given = StructuredOutput(choices=["b", "a", "b"])
    assert given.choices == ("b", "a") and given.kind == "choices"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of json_schema, regex, choices, grammar, got none"),
        ({"regex": "a", "grammar": "b"}, "exactly one of .*, got regex and grammar"),
        ({"regex": ""}, "structured.regex: expected a non-empty string, got ''"),
        ({"grammar": 3}, "structured.grammar: expected a non-empty string, got 3"),
        ({"choices": []}, r"structured.choices: expected a non-empty list .*, got \[\]"),
        ({"choices": "ab"}, "structured.choices: .* got 'ab'"),
        ({"choices": ["a", ""]}, "structured.choices: expected .* non-empty strings"),
        ({"json_schema": "{"}, "structured.json_schema: .* got text that is no JSON"),
        ({"json_schema": "[1]"}, r"structured.json_schema: expected .* an object, got '\[1\]'"),
        ({"json_schema": {"const": {1}}}, "structured.json_schema: .* not JSON serializable"),
        ({"json_schema": {"const": float("nan")}}, "structured.json_schema: .* not JSON compliant"),
        ({"regex": "a", "whitespace_pattern": None}, "structured.whitespace_pattern: .* got None"),
    ],
)
def test_malformed_ones_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StructuredOutput(**given)


def test_parameters_take_nothing_else() -> None:
    with pytest.raises(InputError, match=r"structured: expected StructuredOutput .* got 'a\+'"):
        SamplingParams(structured="a+")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="structured: expected StructuredOutput"):
        BeamSearchParams(structured={"type": "null"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ignore_eos: expected False with structured"):
        BeamSearchParams(structured=StructuredOutput(regex="a"), ignore_eos=True)
