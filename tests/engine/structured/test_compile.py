"""Compiling grammars: what is wrong is said before anything runs; each is compiled once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from ramify import LLM, InputError, SamplingParams, StructuredOutput
from ramify.engine.codec import Codec
from ramify.engine.structured import compile as compiling
from ramify.engine.structured.compile import Grammars
from ramify.testing.models import save_tiny_llama

NOBODY: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}

WRONG = [
    ({"regex": "(ab"}, r"(?s)structured.regex: .* got '\(ab': .*unclosed group"),
    ({"regex": "a(?=b)"}, "(?s)structured.regex: .*look-ahead .* not supported"),
    ({"regex": r"(a)\1"}, "(?s)structured.regex: .*backreferences are not supported"),
    ({"regex": r"[^\s\S]"}, r"structured.regex: expected .* that some text matches.*: no text"),
    ({"regex": "()"}, "structured.regex: .*: no text of the model's vocabulary satisfies it"),
    ({"choices": ["\ud800"]}, "structured.choices: expected strings that UTF-8 can write"),
    ({"grammar": "start: foo"}, r'structured.grammar: .* at 1\(8\): unknown name: "foo"'),
    ({"grammar": 'start: ("a"'}, r"structured.grammar: .* Expected token '\)'"),
    ({"json_schema": {"type": "foo"}}, "structured.json_schema: .*: Invalid type: foo"),
    (
        {"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}},
        r"structured.json_schema: .*: Unsatisfiable schema: minimum \(5\) is greater than maximum",
    ),
    ({"json_schema": {"enum": []}}, "structured.json_schema: .*: Unsatisfiable schema"),
    (
        {"json_schema": {"$ref": "#"}},
        "structured.json_schema: .*: no text of the model's vocabulary",
    ),
    ({"json_schema": {"uniqueItems": True}}, "structured.json_schema: .*uniqueItems"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_errors_name_the_field_and_the_reason(
    grammars: Grammars, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        grammars.start(StructuredOutput(**given))


def test_nothing_runs_when_one_of_many_is_wrong(llm: LLM) -> None:
    good = SamplingParams(structured=StructuredOutput(regex="a+"))
    bad = SamplingParams(structured=StructuredOutput(regex="a("))
    before = llm.engine.num_steps
    with pytest.raises(InputError, match="structured.regex"):
        llm.generate([[1, 5], [1, 6]], [good, bad])
    assert not llm.engine.has_work and llm.engine.num_steps == before


def test_long_grammars_are_not_repeated_whole(grammars: Grammars) -> None:
    with pytest.raises(InputError) as caught:
        grammars.start(StructuredOutput(regex="word and " * 500 + "("))
    assert len(str(caught.value).partition(": invalid")[0]) < 400


def test_a_grammar_is_compiled_once_and_its_states_are_apart(grammars: Grammars) -> None:
    first = grammars.start(StructuredOutput(choices=["aa", "ab"]))
    second = grammars.start(StructuredOutput(choices=("aa", "ab", "aa")))
    assert grammars.num_compiled == 1
    token = next(t for t in range(3, 512) if first.fork().advance((t,)))
    assert first.advance((token,)) == 1
    assert second.advance((token,)) == 1


def test_grammars_out_of_use_are_forgotten(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "MOST_COMPILED", 2)
    for text in ("a", "b", "a", "c", "a"):  # b goes, as a was used after it
        grammars.start(StructuredOutput(choices=[text]))
    assert grammars.num_compiled == 3
    grammars.start(StructuredOutput(choices=["b"]))
    assert grammars.num_compiled == 4


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────
def byte_fallback_codec() -> Codec:
    """Pieces with a mark for spaces and single bytes for the rest, as SentencePiece makes them."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁yes", "▁no", "y", "es", "▁"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    return Codec(fast, len(pieces) + 20)  # a vocabulary that is padded


def test_byte_fallback_tokenizers_are_read() -> None:
    codec = byte_fallback_codec()
    grammars, texts = Grammars(codec), (" yes", " no", " yé")
    (mask,) = grammars.masks.of([grammars.start(StructuredOutput(choices=texts))])
    allowed = [t for t in range(codec.vocab_size) if mask[t // 32] >> (t % 32) & 1]
    assert {codec.decode([t]) for t in allowed} == {" ", " yes", " no"}
    for pieces in (["▁yes"], ["▁", "y", "es"], ["▁", "y", "<0xC3>", "<0xA9>"]):
        assert codec.tokenizer is not None
        state = grammars.start(StructuredOutput(choices=texts))
        ids = codec.tokenizer.convert_tokens_to_ids(pieces)
        assert state.advance(ids) == len(pieces) and state.is_over


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1}, unk_token="<unk>"))
    codec = Codec(PreTrainedTokenizerFast(tokenizer_object=words), 2)
    with pytest.raises(InputError, match="structured: expected a model whose tokens are bytes"):
        Grammars(codec).start(StructuredOutput(choices=["yes"]))


def test_a_model_without_a_tokenizer_has_no_text_to_structure(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    params = SamplingParams(structured=StructuredOutput(regex="a"))
    with pytest.raises(InputError, match="structured: expected a model with a tokenizer"):
        LLM(str(tmp_path), num_slots=100).generate([[1, 2]], params)
