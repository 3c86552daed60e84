"""Where in a grammar a path is: a parser that forks with its branch and moves by tokens.

The parser is llguidance's (github.com/guidance-ai/llguidance): a derivative-based lexer below an
Earley parser, over the bytes of tokens, so that a token may reach across lexemes.
"""

from __future__ import annotations

from collections.abc import Sequence

from llguidance import LLMatcher


class GrammarState:
    """A grammar after some tokens. Forks share what the grammar's lexer has learnt so far.

    Args:
        matcher: llguidance's; nobody else may hold it.
        end_token: the token that stands for the end of text with llguidance and nowhere else.
    """

    __slots__ = ("_end_token", "_matcher")

    def __init__(self, matcher: LLMatcher, end_token: int) -> None:
        self._matcher = matcher
        self._end_token = end_token

    def fork(self) -> GrammarState:
        """The same state, for another branch: microseconds, whatever was read so far."""
        return GrammarState(self._matcher.deep_copy(), self._end_token)

    def advance(self, tokens: Sequence[int]) -> int:
        """Read tokens up to the first that the grammar refuses; returns how many were read."""
        if self._end_token in tokens:
            tokens = tokens[: list(tokens).index(self._end_token)]
        read: int = self._matcher.try_consume_tokens(list(tokens))
        return read

    def reads(self, token: int) -> bool:
        """Whether `advance` would read a token."""
        return token != self._end_token and bool(self._matcher.validate_tokens([token]))

    def after(self, token: int) -> GrammarState | None:
        """A fork that has read a token; None where the grammar refuses it or ends with it."""
        state = self.fork()
        return state if state.advance((token,)) and not state.is_over else None

    @property
    def matcher(self) -> LLMatcher:
        """llguidance's side, for computing masks."""
        return self._matcher

    @property
    def end_token(self) -> int:
        """The bit of a mask that says that the text may end."""
        return self._end_token

    @property
    def is_accepting(self) -> bool:
        """Whether what was read is a text of the grammar."""
        accepting: bool = self._matcher.is_accepting()
        return accepting

    @property
    def is_over(self) -> bool:
        """Whether it is, and no longer one begins with it."""
        return self.is_accepting and bool(self._matcher.is_stopped())

    @property
    def error(self) -> str:
        """Why nothing more can be read; empty where something can."""
        text: str = self._matcher.get_error()
        if text.startswith("NoExtension"):
            return "no token of the vocabulary continues the text"
        return text.partition("\n")[0]
