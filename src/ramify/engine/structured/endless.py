"""Grammars that no finite text satisfies, as each of their texts holds another one without end.

The parser does not notice them: `start: "a" start` has a first token, and a second, and no last.
What a symbol needs is read out of a schema (schema_needs.py) or a Lark grammar (lark_needs.py);
symbols that can end are then found as a least fixed point. What is not understood counts as ending.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ramify.core.structured import StructuredOutput
from ramify.engine.structured.lark_needs import START, needs_of_lark
from ramify.engine.structured.schema_needs import ROOT, needs_of_schema

MOST_NAMED = 5

Needs: TypeAlias = Mapping[str, Sequence[Sequence[str]]]
"""Symbol -> groups; it can end if of every group one symbol can. One without an entry can."""


def why_endless(structured: StructuredOutput) -> str:
    """Which symbols keep every text from ending; empty if some text ends, as far as is known."""
    if isinstance(structured.json_schema, str):
        needs, start = needs_of_schema(json.loads(structured.json_schema)), ROOT
    elif structured.grammar is not None:
        needs, start = needs_of_lark(structured.grammar), START
    else:
        return ""
    guilty = endless_below(needs, start)
    if not guilty:
        return ""
    named = ", ".join(guilty[:MOST_NAMED])
    return f"no text of it is finite, as these need one another without end: {named}"


def endless_below(needs: Needs, start: str) -> list[str]:
    """The symbols without end that keep `start` from ending, itself first; none if it can end."""
    ending = {name for groups in needs.values() for group in groups for name in group} - set(needs)
    size = -1
    while size < len(ending):
        size = len(ending)
        ending |= {
            name
            for name, groups in needs.items()
            if all(any(one in ending for one in group) for group in groups)
        }
    found = [start] if start in needs and start not in ending else []
    for name in found:
        stuck = [group for group in needs[name] if not any(one in ending for one in group)]
        found += {one: None for group in stuck for one in group if one not in found}
    return found
