"""How structured branches end: complete, cut off, or where no token of the vocabulary goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ramify import LLM, BeamSearchParams, InputError, SamplingParams, StructuredOutput
from ramify.testing.models import save_tiny_llama

PROMPTS = [[1, 40], [1, 50, 51, 52], [1, 99, 7]]


def test_finish_reasons(llm: LLM) -> None:
    def one(structured: StructuredOutput, **rules: object) -> tuple[str, str | None]:
        params = SamplingParams(structured=structured, seed=4, **rules)  # type: ignore[arg-type]
        output = llm.generate([PROMPTS[0]], params)[0].outputs[0]
        return output.text, output.finish_reason

    exact = StructuredOutput(regex="[0-9]{5}")
    text, reason = one(exact, max_tokens=3)
    assert reason == "length" and re.fullmatch("[0-9]{3}", text)
    text, reason = one(exact, max_tokens=5)
    assert reason == "stop" and re.fullmatch("[0-9]{5}", text)
    text, reason = one(StructuredOutput(regex="[0-9]+"), max_tokens=9, ignore_eos=True)
    assert reason == "length" and re.fullmatch("[0-9]{9}", text)
    text, reason = one(exact, max_tokens=9, min_tokens=8)  # nothing may follow, so nothing does
    assert reason == "stop" and re.fullmatch("[0-9]{5}", text)
    text, reason = one(StructuredOutput(regex="[0-9]{0,9}"), max_tokens=9, min_tokens=6)
    assert reason == "stop" and 6 <= len(text) <= 9


def test_a_token_that_stops_may_come_only_where_the_text_is_whole(llm: LLM) -> None:
    """Token 1 is no text: as with the end of text, the grammar says when it is time for it."""
    params = SamplingParams(
        n=20,
        seed=0,
        max_tokens=40,
        ignore_eos=True,
        stop_token_ids=[1],
        structured=StructuredOutput(regex="(ab)+"),
    )
    outputs = llm.generate([PROMPTS[0]], params)[0].outputs
    ended = [output for output in outputs if output.finish_reason == "stop"]
    assert len(ended) > 5
    for output in ended:
        assert output.stop_reason == 1 and output.token_ids[-1] == 1
        assert re.fullmatch("(ab)+", output.text)


def test_beams_that_are_cut_off_come_last_and_say_so(llm: LLM) -> None:
    structured = StructuredOutput(choices=["a", "bcbcbcbcbc", "ac"])
    params = BeamSearchParams(beam_width=3, max_tokens=4, structured=structured)
    beams = llm.beam_search([PROMPTS[0]], params)[0].outputs
    assert {b.text for b in beams[:2]} == {"a", "ac"}
    assert [b.finish_reason for b in beams] == ["stop", "stop", "length"]
    assert beams[2].text == "bcbc"


# ── a vocabulary that cannot write everything ────────────────────────────────────────────────────
@pytest.fixture
def two_letters(tmp_path: Path) -> Path:
    """A model that knows the letters a and b and the end of text."""
    save_tiny_llama(tmp_path, vocab_size=3, eos_token_id=2)
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(tmp_path)
    return tmp_path


def test_a_branch_that_no_token_continues_says_why(two_letters: Path) -> None:
    llm = LLM(str(two_letters), num_slots=200)
    params = [
        SamplingParams(n=4, seed=0, max_tokens=9, structured=StructuredOutput(regex="ac|aab|bc"))
        for _ in PROMPTS
    ]
    params[1] = SamplingParams(n=4, seed=0, max_tokens=9, structured=StructuredOutput(regex="b+a"))
    found = llm.generate([[0], [1], [0, 1]], params)
    assert all(o.text == "aab" or o.finish_reason != "stop" for o in found[0].outputs)
    stuck = [o for o in (*found[0].outputs, *found[2].outputs) if o.finish_reason == "error"]
    assert stuck and all(o.text in ("b", "a") for o in stuck)
    assert "structured: no token of the vocabulary" in str(stuck[0].stop_reason)
    assert all(re.fullmatch("b+a?", o.text) for o in found[1].outputs)
    assert all(o.finish_reason in ("stop", "length") for o in found[1].outputs)
    with pytest.raises(InputError, match="no text of the model's vocabulary satisfies it"):
        llm.generate([[0]], SamplingParams(structured=StructuredOutput(regex="c+")))
    assert not llm.engine.cache.cursors


def test_a_draft_that_leads_to_a_dead_end_is_kept_up_to_it(two_letters: Path) -> None:
    config = {"method": "custom", "drafter": lambda tokens, most: [[0, 0, 0]]}
    llm = LLM(str(two_letters), num_slots=200, speculative_config={**config, "adaptive": False})
    params = SamplingParams(n=2, seed=0, max_tokens=9, structured=StructuredOutput(regex="aaac"))
    (found,) = llm.generate([[1]], params)
    assert found.usage.accepted_tokens == 4
    for output in found.outputs:
        assert output.text == "aaa" and output.token_ids == [0, 0, 0]
        assert output.finish_reason == "error"
    llm.engine.cache.check_integrity()
    assert not llm.engine.cache.cursors


def test_beams_that_no_token_continues_are_dropped(two_letters: Path) -> None:
    llm = LLM(str(two_letters), num_slots=200)
    structured = StructuredOutput(regex="ac|aab|bc")
    params = BeamSearchParams(beam_width=3, max_tokens=9, structured=structured)
    (found,) = llm.beam_search([[0]], params)
    assert [beam.text for beam in found.outputs] == ["aab"]


def test_beams_need_an_end_of_text(bytes_model: Path) -> None:
    params = BeamSearchParams(structured=StructuredOutput(regex="a"))
    with pytest.raises(InputError, match="structured: expected a model with an end-of-text token"):
        LLM(str(bytes_model), num_slots=200).beam_search(["a"], params)
