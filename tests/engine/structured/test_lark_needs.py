"""Lark grammars that hold themselves: with a way out, and without."""

from __future__ import annotations

import pytest

from ramify import StructuredOutput
from ramify.engine.structured.endless import why_endless

LARKS = [
    ('start: "a" start', True),
    ('start: "a" start | "b"', False),
    ('start: "a" start?', False),
    ('start: "a" start*', False),
    ('start: "a" start+', True),
    ('start: "a" start{0,2}', False),
    ('start: "a" start{1,2}', True),
    ('start: "a" (start | "b" start)', True),
    ('start: "a" (start | "b")', False),
    ("start: a b\na: /x+/ // a: start\nb: (a | b) b", True),
    ("start: a b\na: /x+/\nb: (a | b) \"|\" a", False),
    ('start: A other\nother[capture]: "(" other ")"\n  | A\nA: /[a-z]/', False),
    ('start: "x" (start)?other\nother: "y"', False),
    ('?start: one\none: two\ntwo: "x" one', True),
    ('start: "x: start" <bos> start | START\nSTART: "a".."z"', False),
    ('%llguidance {}\nstart: "a" start', False),  # not understood
]  # fmt: skip


@pytest.mark.parametrize(("grammar", "is_endless"), LARKS)
def test_lark_grammars(grammar: str, is_endless: bool) -> None:
    assert bool(why_endless(StructuredOutput(grammar=grammar))) == is_endless
