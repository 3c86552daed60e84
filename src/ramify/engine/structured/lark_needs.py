"""What the rules of a Lark grammar must hold. Grammars with directives are left to the parser."""

from __future__ import annotations

import re
from collections.abc import Sequence

START = "start"

_TOKEN = re.compile(
    r"""\s+ | //[^\n]* | \#[^\n]*
    | (?P<text> "(?:\\.|[^"\\])*"i? | /(?:\\.|[^/\\])+/[a-z]* | <[^<>\s]+> )
    | (?P<name> [A-Za-z_][\w-]* )
    | (?P<sign> \.\. | [:|()?!*+~{},.] | \d+ | \[[^\]\n]*\] )""",
    re.VERBOSE,
)
_TEXT = '"'  # stands for everything that is no name: strings, regexes, special tokens

Groups = list[list[str]]


def needs_of_lark(grammar: str) -> dict[str, Groups]:
    """Rule, or part of one -> groups of them; see `Needs`. Nothing where it is not understood."""
    tokens: list[str] = []
    at = 0
    while at < len(grammar):
        found = _TOKEN.match(grammar, at)
        if found is None:
            return {}
        at = found.end()
        if found.lastgroup is not None:
            tokens.append(_TEXT if found.lastgroup == "text" else found[0])
    return _Rules(tokens).read()


class _Rules:
    """A reader of rules, one token after the other."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token for token in tokens if not token.startswith("[")]  # attributes
        self._at = 0
        self._needs: dict[str, Groups] = {}

    def read(self) -> dict[str, Groups]:
        while self._at < len(self._tokens):
            if self._peek() in ("?", "!"):  # how a tree is shaped
                self._at += 1
            if not self._begins_rule():
                return {}
            name = self._tokens[self._at]
            self._at += 2
            self._needs[name] = [self._alternatives(name)]
        return self._needs

    def _begins_rule(self) -> bool:
        return self._is_name(self._peek()) and self._peek(1) == ":"

    def _alternatives(self, name: str) -> list[str]:
        """Read up to a bracket that closes or the next rule; a symbol for each alternative."""
        made = [self._alternative(f"{name} (1)")]
        while self._peek() == "|":
            self._at += 1
            made.append(self._alternative(f"{name} ({len(made) + 1})"))
        return made

    def _alternative(self, name: str) -> str:
        groups: Groups = []
        while self._peek() not in ("|", ")", "") and not self._begins_rule():
            group = self._item(f"{name}.{len(groups) + 1}")
            if group and not self._may_be_left_out():
                groups.append(group)
        self._needs[name] = groups
        return name

    def _item(self, name: str) -> list[str]:
        """One item's group; none where it is plain text or a sign."""
        token = self._peek()
        self._at += 1
        if token == "(":
            group = self._alternatives(name)
            self._at += 1
            return group
        return [token] if self._is_name(token) else []

    def _may_be_left_out(self) -> bool:
        """Whether what was read may come zero times."""
        if self._peek() in ("?", "*"):
            return True
        return self._peek() in ("~", "{") and self._peek(1) in ("0", ",")

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    @staticmethod
    def _is_name(token: str) -> bool:
        return token[:1].isalpha() or token[:1] == "_"
