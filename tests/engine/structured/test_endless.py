"""Grammars without a finite text are found, and no others are taken for such."""

from __future__ import annotations

import random

import pytest

from ramify import InputError, StructuredOutput
from ramify.engine.structured.compile import Grammars
from ramify.engine.structured.endless import Needs, endless_below, why_endless
from ramify.testing.grammars import make_case

NODE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


def test_the_error_names_who_needs_whom(grammars: Grammars) -> None:
    with pytest.raises(InputError, match="no text of it is finite.* without end: #, #/properties/"):
        grammars.start(StructuredOutput(json_schema=NODE))
    with pytest.raises(InputError, match="structured.grammar: .*no text of it is finite"):
        grammars.start(StructuredOutput(grammar='start: "a" start'))


def test_no_random_grammar_is_taken_for_one() -> None:
    assert not any(why_endless(make_case(seed).structured) for seed in range(600))


def ends(needs: Needs, name: str, depth: int) -> bool:
    """Whether a symbol has a tree of so many levels."""
    return depth > 0 and all(
        any(ends(needs, one, depth - 1) for one in set(group)) for group in needs[name]
    )


def test_random_needs_equal_a_search_for_a_finite_tree() -> None:
    """A symbol that can end at all can within as many levels as there are symbols."""
    rng, num_endless = random.Random(0), 0
    for _ in range(500):
        names = [f"s{i}" for i in range(rng.randint(1, 7))]
        needs = {
            name: [rng.choices(names, k=rng.randint(1, 3)) for _ in range(rng.randrange(4))]
            for name in names
        }
        found = endless_below(needs, "s0")
        assert (not found) == ends(needs, "s0", len(names))
        assert not any(ends(needs, name, len(names)) for name in found)
        num_endless += bool(found)
    assert 50 < num_endless < 450
