"""Schemas that hold themselves: with a way out, and without."""

from __future__ import annotations

from typing import Any

import pytest

from ramify import StructuredOutput
from ramify.engine.structured.endless import why_endless

ROOT = {"$ref": "#"}
NODE = {"type": "object", "properties": {"next": ROOT}, "required": ["next"]}
NULL = {"type": "null"}


def to(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


SCHEMAS: list[tuple[dict[str, Any], bool]] = [
    (NODE, True),
    ({**NODE, "required": []}, False),
    ({"anyOf": [NODE, NULL]}, False),
    ({"anyOf": [{"type": "array", "items": ROOT, "minItems": 1}]}, True),
    ({"type": "array", "items": ROOT}, False),
    ({"type": "array", "prefixItems": [ROOT], "minItems": 1}, True),
    ({"type": "array", "prefixItems": [NULL], "items": ROOT, "minItems": 1}, False),
    ({**to("a~1b"), "$defs": {"a/b": {"allOf": [to("c")]}, "c": NODE}}, True),
    ({**to("a~1b"), "$defs": {"a/b": {"allOf": [NULL]}, "c": NODE}}, False),
    ({**to("a"), "$defs": {"a": to("b"), "b": to("a")}}, True),
    ({"$ref": "https://example.org/schema"}, False),
    ({"properties": {"a": ROOT}, "required": ["a"]}, False),  # any type: it may be a number
    ({"type": "object", "properties": {"a/%": ROOT}, "required": ["a/%"]}, True),
    ({"enum": [1], "type": "object", "properties": {"a": ROOT}, "required": ["a"]}, False),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "is_endless"), SCHEMAS)
def test_schemas(schema: dict[str, Any], is_endless: bool) -> None:
    assert bool(why_endless(StructuredOutput(json_schema=schema))) == is_endless
