"""What the values of a JSON schema must hold: properties, items, references, alternatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

ROOT = "#"

Groups = list[list[str]]


def needs_of_schema(schema: dict[str, Any]) -> dict[str, Groups]:
    """JSON pointer of every schema that the root needs -> groups of pointers; see `Needs`."""
    needs: dict[str, Groups] = {}
    waiting = [ROOT]
    while waiting:
        pointer = waiting.pop()
        found = _resolve(schema, pointer)
        if pointer in needs or not isinstance(found, dict):
            continue  # true, false and what is not there are no matter of ends
        needs[pointer] = [list(group) for group in _groups(found, pointer)]
        waiting += [one for group in needs[pointer] for one in group]
    return needs


def _groups(schema: dict[str, Any], pointer: str) -> Iterator[list[str]]:
    """What one schema asks for, group by group."""
    if isinstance(reference := schema.get("$ref"), str):
        yield [reference if reference.startswith(ROOT) else f"elsewhere {reference}"]
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list):
            yield [f"{pointer}/{key}/{place}" for place in range(len(options))]
    if isinstance(parts := schema.get("allOf"), list):
        yield from ([f"{pointer}/allOf/{place}"] for place in range(len(parts)))
    # of several types one may be plain; a value that is named is there
    if "const" in schema or "enum" in schema:
        return
    if schema.get("type") == "object":
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name in known:
                yield [f"{pointer}/properties/{_escaped(name)}"]
    elif schema.get("type") == "array":
        yield from _items(schema, pointer)


def _items(schema: dict[str, Any], pointer: str) -> Iterator[list[str]]:
    least, first = schema.get("minItems", 0), schema.get("prefixItems", ())
    yield from ([f"{pointer}/prefixItems/{place}"] for place in range(min(least, len(first))))
    if least > len(first) and "items" in schema:
        yield [f"{pointer}/items"]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1").replace("%", "%25")


def _resolve(schema: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) behind `#` points to; None if nothing."""
    for part in pointer.removeprefix(ROOT).split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, dict):
            schema = schema.get(key)
        elif isinstance(schema, list) and key.isdigit() and int(key) < len(schema):
            schema = schema[int(key)]
        else:
            return None
    return schema
