"""From a `StructuredOutput` to the state a grammar starts from, compiled once per engine.

llguidance works on the bytes of a vocabulary, which it reads out of a tokenizer's JSON. The end of
text is a token of its own that no model knows: which tokens end a branch is a matter of the request
(masks.py), not of the grammar.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from ramify.core.errors import InputError, expected_got
from ramify.core.structured import StructuredOutput
from ramify.engine.codec import Codec
from ramify.engine.structured.endless import why_endless
from ramify.engine.structured.masks import MaskMaker
from ramify.engine.structured.state import GrammarState

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MOST_COMPILED = 256
"""Grammars kept; the one whose last use is longest ago goes first."""
SHOWN = 200
"""Characters of a grammar that an error repeats."""
END = "<|end of structured output|>"

EXPECTED = {
    "json_schema": "a JSON schema that llguidance knows and some value satisfies",
    "regex": "a regex (Rust's syntax, no look-around or references) that some text matches",
    "choices": "strings that UTF-8 can write",
    "grammar": "a Lark grammar that some text satisfies",
}


class Grammars:
    """The grammars of one tokenizer.

    Attributes:
        masks: computes the masks of the vocabulary.
        num_compiled: grammars compiled so far.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._tokenizer: LLTokenizer | None = None
        self._end_token = 0
        self._states: OrderedDict[StructuredOutput, GrammarState] = OrderedDict()
        self.masks = MaskMaker(codec.vocab_size)
        self.num_compiled = 0

    def start(self, structured: StructuredOutput) -> GrammarState:
        """A grammar's state before any token, to be kept by the caller.

        Raises:
            InputError: the grammar is malformed or asks for what llguidance cannot do, no text of
                this vocabulary satisfies it, or llguidance cannot read the model's tokenizer.
        """
        if structured not in self._states:
            self._states[structured] = self._compile(structured)
            self.num_compiled += 1
            if len(self._states) > MOST_COMPILED:
                self._states.popitem(last=False)
        self._states.move_to_end(structured)
        return self._states[structured].fork()

    def _compile(self, structured: StructuredOutput) -> GrammarState:
        tokenizer = self._open_tokenizer()
        state = GrammarState(
            LLMatcher(tokenizer, _source(structured), log_level=0), self._end_token
        )
        reason = why_endless(structured)
        name, value = structured.kind, getattr(structured, structured.kind)
        if not self.masks.of([state]).any():
            reason = _readable(state.matcher.get_error(), name)
        if reason:
            shown = repr(value) if len(repr(value)) <= SHOWN else repr(value)[:SHOWN] + " ..."
            got = f"{shown}: {reason}"
            raise InputError(expected_got(f"structured.{name}", EXPECTED[name], got))
        return state

    def _open_tokenizer(self) -> LLTokenizer:
        if self._tokenizer is None:
            self._codec.require_text("structured")
            backend = getattr(self._codec.tokenizer, "backend_tokenizer", None)
            if backend is None:
                got = type(self._codec.tokenizer).__name__
                raise InputError(expected_got("structured", "a model with a fast tokenizer", got))
            self._tokenizer = self._read(Tokenizer.from_str(backend.to_str()))
        return self._tokenizer

    def _read(self, tokenizer: Tokenizer) -> LLTokenizer:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.add_special_tokens([END])
        end_token = tokenizer.token_to_id(END)
        assert end_token is not None, "the token was added"
        self._end_token = end_token
        num_tokens = max(self._codec.vocab_size, end_token + 1)
        try:
            return LLTokenizer(tokenizer.to_str(), n_vocab=num_tokens, eos_token=self._end_token)
        except ValueError as error:
            wanted = "a model whose tokens are bytes: byte-level BPE or with byte fallback"
            raise InputError(expected_got("structured", wanted, error)) from error


def _source(structured: StructuredOutput) -> str:
    """What llguidance takes, in its own format."""
    if isinstance(structured.json_schema, str):
        pattern = structured.whitespace_pattern
        options: JsonCompileOptions = {"whitespace_flexible": False}
        if pattern:
            options = {"whitespace_pattern": pattern}
        return LLMatcher.grammar_from_json_schema(structured.json_schema, overrides=options)
    if structured.regex is not None:
        return LLMatcher.grammar_from_regex(structured.regex)
    if structured.choices is not None:
        choices = " | ".join(json.dumps(choice) for choice in structured.choices)
        return LLMatcher.grammar_from_lark(f"start: {choices}")
    assert structured.grammar is not None, "one kind is given, and a schema is kept as JSON"
    return LLMatcher.grammar_from_lark(structured.grammar)


def _readable(error: str, name: str) -> str:
    """llguidance's message without its state, and without places in a text that it made itself."""
    text = error.partition("\n<state>")[0].strip()
    if not text or text.startswith("NoExtension"):
        return "no text of the model's vocabulary satisfies it"
    if name != "grammar":
        text = re.sub(r"^at \d+\(\d+\): ", "", text).partition("\n   1 |")[0]
    return text
