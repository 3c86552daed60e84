"""The vocabulary of `ramify-tiny` and the tokenizer built from it.

512 entries: 3 specials, the 256 bytes (so any text encodes and round-trips), and words. A word is
one token only in its exact form, usually with its leading space (" left", " 7"); everything else
falls back to bytes. There are no merges: a piece of the split is one entry or a run of bytes.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from ramify.zoo.tasks.documents import HEADER
from ramify.zoo.tasks.puzzle import NO, YES
from ramify.zoo.tasks.words import ATTRIBUTES, FILLER, THINGS, VALUES

VOCAB_SIZE = 512
CONTEXT = 4096
SPECIALS = ("<pad>", "<bos>", "<eos>")
PAD, BOS, EOS = range(3)
FIRST_BYTE = 3

# a digit with or without its space; an arrow; letters; one other sign; one white space
SPLIT = r" ?[0-9]| ?->| ?[A-Za-z]+| ?[^\sA-Za-z0-9]|\s"


def words() -> list[str]:
    """Every entry longer than a byte, in id order."""
    spaced = [*"0123456789", *"+-*/=|:.", "->", "of", "is", "that", "left"]
    spaced += [*ATTRIBUTES, *THINGS, *(v for values in VALUES.values() for v in values), *FILLER]
    line_starts = ["puzzle", "sort", "merge", HEADER, "passage", "ask"]
    return line_starts + [YES, NO] + [f" {word}" for word in spaced]


def token_ids() -> dict[str, int]:
    """Text of each ASCII entry -> id; what the data writers look their tokens up in."""
    ids = {chr(byte): FIRST_BYTE + byte for byte in range(128)}
    ids.update({word: FIRST_BYTE + 256 + i for i, word in enumerate(words())})
    return ids


def build_tokenizer() -> Tokenizer:
    """The tokenizer: byte level, whole pieces looked up first; encoding puts <bos> in front."""
    to_char = _byte_chars()
    vocab = {name: i for i, name in enumerate(SPECIALS)}
    vocab.update({char: FIRST_BYTE + byte for byte, char in enumerate(to_char)})
    for i, word in enumerate(words()):
        vocab["".join(to_char[byte] for byte in word.encode())] = FIRST_BYTE + 256 + i
    assert len(vocab) == VOCAB_SIZE, f"vocabulary has {len(vocab)} entries"
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    return tokenizer


def save_tokenizer(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers reads them."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(directory)


def _byte_chars() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    chars = {byte: chr(byte) for byte in printable}
    chars.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return [chars[byte] for byte in range(256)]
