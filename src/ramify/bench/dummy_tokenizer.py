"""A tokenizer for models of random weights: a word for every token, and no merges to pay for."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit


def write_dummy_tokenizer(directory: Path, vocab_size: int) -> None:
    """Put a tokenizer beside a config.json. Every list of tokens reads back as it was written."""
    words = {f"w{token}": token for token in range(vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    # the unknown word is no special token: those are cut out of the midst of words
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2)
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
