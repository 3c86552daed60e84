"""From tokens to text as they come: incremental decoding and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT_TOKENS = 8
"""Tokens before a branch that are decoded with it, since a token's text may depend on them."""


class TextStream:
    """Decode one branch token by token; text is held back while a character is incomplete."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        context: Sequence[int],
        *,
        skip_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window = list(context[-CONTEXT_TOKENS:])
        self._shown = self._decode(self._window)
        self._start = 0 if tokenizer is None else len(self._window)

    def push(self, token: int) -> str:
        """Text that `token` adds; empty while a multi-byte character is unfinished."""
        if self._tokenizer is None:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith("\ufffd") and len(self._window) - self._start < CONTEXT_TOKENS:
            return ""
        added = text[len(self._shown) :]
        # a short window keeps each step's cost constant
        self._window = self._window[-CONTEXT_TOKENS:]
        self._start = len(self._window)
        self._shown = self._decode(self._window)
        return added

    def extend(self, tokens: Sequence[int]) -> str:
        """Text that several tokens add, decoded at once."""
        if self._tokenizer is None:
            return ""
        text = self._decode([*self._window, *tokens])
        if text.endswith("\ufffd"):
            return "".join(map(self.push, tokens))
        added = text[len(self._shown) :]
        self._window = [*self._window, *tokens][-CONTEXT_TOKENS:]
        self._start = len(self._window)
        self._shown = self._decode(self._window)
        return added

    def flush(self) -> str:
        """Text still held back when a branch ends."""
        if self._tokenizer is None:
            return ""
        return self._decode(self._window)[len(self._shown) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        if self._tokenizer is None or not tokens:
            return ""
        text = self._tokenizer.decode(
            list(tokens),
            skip_special_tokens=self._skip,
            clean_up_tokenization_spaces=False,
        )
        assert isinstance(text, str)
        return text


def find_stop(text: str, added: int, stops: Sequence[str]) -> tuple[int, str] | None:
    """The earliest stop string that ends inside the last `added` characters of `text`.

    Returns where it begins and which it is; of several that begin together the longest wins.
    """
    found: tuple[int, str] | None = None
    for stop in stops:
        at = text.find(stop, max(len(text) - added - len(stop) + 1, 0))
        if at >= 0 and (found is None or (at, -len(stop)) < (found[0], -len(found[1]))):
            found = (at, stop)
    return found


def visible_length(text: str, stops: Sequence[str]) -> int:
    """Characters that can be shown now: a tail that may become a stop string is held back."""
    longest = max((len(stop) for stop in stops), default=0)
    for held in range(min(longest - 1, len(text)), 0, -1):
        tail = text[len(text) - held :]
        if any(stop.startswith(tail) for stop in stops):
            return len(text) - held
    return len(text)
