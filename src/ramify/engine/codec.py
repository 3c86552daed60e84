"""Between text and token ids at the engine's border, with typed errors for bad prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.core.errors import InputError, expected_got

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Codec:
    """A tokenizer, or its absence, and the vocabulary's size."""

    tokenizer: PreTrainedTokenizerBase | None
    vocab_size: int

    def encode_prompt(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt, with the tokenizer's special tokens if it is text.

        Raises InputError: empty, wrong type, an id out of range, or text without a tokenizer.
        """
        if isinstance(prompt, str):
            if not prompt:
                raise InputError(expected_got("prompt", "at least one token", "an empty string"))
            tokens = self._encode(prompt, special=True)
        else:
            tokens = self.check_ids("prompt", prompt)
        if not tokens:
            raise InputError(expected_got("prompt", "at least one token", "none"))
        return tokens

    def encode(self, tokens: str | Sequence[int], *, name: str = "tokens") -> tuple[int, ...]:
        """Token ids of a continuation: text without special tokens, or ids that are checked."""
        if isinstance(tokens, str):
            return tuple(self._encode(tokens, special=False))
        return tuple(self.check_ids(name, tokens))

    def label(self, label: int | str) -> int:
        """The one token of a label. Raises InputError if it is several."""
        tokens = self.encode(label) if isinstance(label, str) else self.encode((label,))
        if len(tokens) != 1:
            got = f"{len(tokens)} tokens"
            raise InputError(expected_got(f"label {label!r}", "exactly one token", got))
        return tokens[0]

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of whole token lists; empty without a tokenizer."""
        if self.tokenizer is None:
            return ""
        text = self.tokenizer.decode(
            list(tokens),
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
        assert isinstance(text, str)
        return text

    def check_ids(self, name: str, tokens: object) -> list[int]:
        """A list of ints inside the vocabulary, or InputError."""
        if not isinstance(tokens, Sequence):
            raise InputError(expected_got(name, "text or a list of token ids", repr(tokens)))
        for token in tokens:
            if not isinstance(token, int) or isinstance(token, bool):
                raise InputError(expected_got(f"{name}[...]", "an int token id", repr(token)))
            if not 0 <= token < self.vocab_size:
                allowed = f"a token id in [0, {self.vocab_size})"
                raise InputError(expected_got(f"{name}[...]", allowed, token))
        return list(tokens)

    def require_text(self, what: str) -> None:
        """Raise InputError when something needs a tokenizer and the model came without one."""
        if self.tokenizer is None:
            raise InputError(
                expected_got(what, "a model with a tokenizer", "none in its directory")
            )

    def _encode(self, text: str, *, special: bool) -> list[int]:
        self.require_text("text prompt")
        assert self.tokenizer is not None
        return list(self.tokenizer.encode(text, add_special_tokens=special))
