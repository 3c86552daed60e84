"""Random grammars of finite languages, each with its own test of membership.

The tests know nothing of the engine's parser: `re.fullmatch` for regexes, Python's JSON and the
meaning of the few keywords that are generated for schemas, membership for choices.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ramify.core.structured import StructuredOutput

LETTERS = "abcxyzAB 01279_-+é日\"'/\\.{"


@dataclass(frozen=True)
class Case:
    """A grammar, and whether a text is one of its own."""

    structured: StructuredOutput
    holds: Callable[[str], bool]


def make_case(seed: int) -> Case:
    """Regexes, schemas and sets of strings in turn."""
    rng = random.Random(seed)
    return (_regex_case, _schema_case, _choices_case)[seed % 3](rng)


# ── strings that share beginnings ────────────────────────────────────────────────────────────────
def _choices_case(rng: random.Random) -> Case:
    letters = rng.choice(["ab", "0123456789", LETTERS, "the sum of "])
    words = [_text(rng, letters, 1, 8)]
    for _ in range(rng.randrange(12)):
        stem = rng.choice(words)
        words.append(stem[: rng.randint(0, len(stem))] + _text(rng, letters, 1, 6))
    return Case(StructuredOutput(choices=words), set(words).__contains__)


def _text(rng: random.Random, letters: str, low: int, high: int) -> str:
    return "".join(rng.choices(letters, k=rng.randint(low, high)))


# ── regexes ──────────────────────────────────────────────────────────────────────────────────────
def _regex_case(rng: random.Random) -> Case:
    # a letter before, as nothing but the empty text may match what follows
    compiled = re.compile(rng.choice("abc") + _regex(rng, 3))
    structured = StructuredOutput(regex=compiled.pattern)
    return Case(structured, lambda text: compiled.fullmatch(text) is not None)


def _regex(rng: random.Random, depth: int) -> str:
    kinds = ["text", "class", "any"] + (["all", "either", "times", "maybe"] * 2 if depth else [])
    match rng.choice(kinds):
        case "text":
            return re.escape(_text(rng, LETTERS, 1, 5))
        case "class":
            # neither \w nor \d, of which Python and Rust know different letters and digits
            return rng.choice(["[a-c]", "[^a-z\\n]", "[0-9]", "[A-z.]", "[é日x]", r"[\x41-\x43-]"])
        case "any":
            return "."
        case "all":
            return "".join(_regex(rng, depth - 1) for _ in range(rng.randint(2, 3)))
        case "either":
            branches = "|".join(_regex(rng, depth - 1) for _ in range(rng.randint(2, 3)))
            return f"(?:{branches})"
        case "times":
            low = rng.randint(0, 2)
            return f"(?:{_regex(rng, depth - 1)}){{{low},{low + rng.randint(0, 2)}}}"
        case _:
            return f"(?:{_regex(rng, depth - 1)})?"


# ── JSON schemas ─────────────────────────────────────────────────────────────────────────────────
def _schema_case(rng: random.Random) -> Case:
    schema = _schema(rng, 2)
    white = rng.choice([" ", "", "\\n"])
    structured = StructuredOutput(json_schema=schema, whitespace_pattern=white)
    return Case(structured, lambda text: _is_json_of(schema, text))


def _schema(rng: random.Random, depth: int) -> dict[str, Any]:
    kinds = ["integer", "string", "enum", "const", "boolean", "null"]
    kinds += ["object", "object", "array", "anyOf"] if depth else []
    match rng.choice(kinds):
        case "integer":
            low = rng.randint(-120, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 2000)}
        case "string":
            low = rng.randint(0, 3)
            return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 4)}
        case "enum":
            return {"enum": [_value(rng) for _ in range(rng.randint(1, 4))]}
        case "const":
            return {"const": _value(rng)}
        case "object":
            return _object_schema(rng, depth)
        case "array":
            low = rng.randint(0, 2)
            items = _schema(rng, depth - 1)
            most = low + rng.randint(0, 2)
            return {"type": "array", "items": items, "minItems": low, "maxItems": most}
        case "anyOf":
            return {"anyOf": [_schema(rng, depth - 1) for _ in range(2)]}
        case kind:
            return {"type": kind}


def _object_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    names = list(dict.fromkeys(_text(rng, LETTERS, 1, 4) for _ in range(rng.randint(0, 3))))
    required = [name for name in names if rng.random() < 0.6]
    return {
        "type": "object",
        "properties": {name: _schema(rng, depth - 1) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def _value(rng: random.Random) -> Any:
    plain = [None, True, False, rng.randint(-99, 999), _text(rng, LETTERS, 0, 5)]
    return rng.choice([*plain, [1, "a"], {"k": rng.randint(0, 9)}])


def _is_json_of(schema: dict[str, Any], text: str) -> bool:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key twice")
        return made

    try:
        return fits(schema, json.loads(text, object_pairs_hook=unique))
    except ValueError:
        return False


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value satisfies a schema of the keywords above."""
    if "anyOf" in schema:
        return any(fits(one, value) for one in schema["anyOf"])
    if "enum" in schema:
        return any(_same(one, value) for one in schema["enum"])
    if "const" in schema:
        return _same(schema["const"], value)
    match schema["type"]:
        case "integer":
            is_int = isinstance(value, int) and not isinstance(value, bool)
            return is_int and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            is_text = isinstance(value, str)
            return is_text and schema["minLength"] <= len(value) <= schema["maxLength"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            fit = isinstance(value, list) and all(fits(schema["items"], one) for one in value)
            return fit and schema["minItems"] <= len(value) <= schema["maxItems"]
    known = schema["properties"]
    is_object = isinstance(value, dict) and set(schema["required"]) <= set(value) <= set(known)
    return is_object and all(fits(known[name], one) for name, one in value.items())


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
