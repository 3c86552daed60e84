"""Text as it comes: characters across tokens, stop strings across tokens, what is held back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ramify import LLM, SamplingParams
from ramify.engine.text import TextStream, find_stop, visible_length


@given(text=st.text(max_size=30))
def test_streamed_text_is_the_text(bytes_model: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bytes_model)
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer, tokenizer.encode("before"))
    parts = [stream.push(token) for token in ids]
    assert "".join(parts) + stream.flush() == text


def test_half_a_character_is_held_back(bytes_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bytes_model)
    stream = TextStream(tokenizer, [])
    assert [stream.push(token) for token in tokenizer.encode("é")] == ["", "é"]


@pytest.mark.parametrize(
    ("text", "added", "stops", "found"),
    [
        ("one two", 1, ["two"], (4, "two")),
        ("one two", 1, ["one"], None),  # ended before the last character: an older matter
        ("one two", 7, ["two", "one"], (0, "one")),
        ("aab", 1, ["b", "ab", "aab"], (0, "aab")),
        ("aab", 1, ["ab", "abc"], (1, "ab")),
        ("", 0, ["x"], None),
    ],
)
def test_find_stop(text: str, added: int, stops: list[str], found: tuple[int, str] | None) -> None:
    assert find_stop(text, added, stops) == found


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("value END", ["END"], 9),
        ("value EN", ["END"], 6),
        ("value", ["END"], 5),
        ("aa", ["aaa"], 0),
    ],
)
def test_visible_length(text: str, stops: list[str], shown: int) -> None:
    assert visible_length(text, stops) == shown


def test_stop_strings_end_a_branch_across_tokens(
    bytes_model: Path, make_llm: Callable[..., LLM]
) -> None:
    """Every two-character piece of a free run, used as a stop string, ends the same run there."""
    llm = make_llm(bytes_model)
    free = SamplingParams(max_tokens=24, seed=5, temperature=1.0)
    (whole,) = llm.generate(["hello"], free)
    text = whole.outputs[0].text
    pairs = [text[i : i + 2] for i in range(len(text) - 1) if "\ufffd" not in text[i : i + 2]]
    assert pairs, "the free run has no clean pair of characters"
    for pair in pairs:
        for include in (False, True):
            params = SamplingParams(
                max_tokens=24, seed=5, stop=[pair], include_stop_str_in_output=include
            )
            (output,) = llm.generate(["hello"], params)
            branch = output.outputs[0]
            end = text.index(pair) + (len(pair) if include else 0)
            assert branch.text == text[:end]
            assert (branch.finish_reason, branch.stop_reason) == ("stop", pair)
            assert branch.token_ids == whole.outputs[0].token_ids[: len(branch.token_ids)]


def test_min_tokens_keeps_stops_away(bytes_model: Path, make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(bytes_model)
    (free,) = llm.generate(["hello"], SamplingParams(max_tokens=6, seed=5))
    first = free.outputs[0].token_ids[0]
    stop = SamplingParams(max_tokens=6, seed=5, stop_token_ids=[first])
    (early,) = llm.generate(["hello"], stop)
    assert early.outputs[0].token_ids == [first] and early.outputs[0].stop_reason == first
    late = SamplingParams(max_tokens=6, seed=5, stop_token_ids=[first], min_tokens=4)
    (kept,) = llm.generate(["hello"], late)
    assert len(kept.outputs[0].token_ids) >= 4
    assert first not in kept.outputs[0].token_ids[:4]


def test_streaming_shows_a_growing_text_that_ends_as_generate_does(
    bytes_model: Path, make_llm: Callable[..., LLM]
) -> None:
    llm = make_llm(bytes_model)
    params = SamplingParams(max_tokens=12, seed=2, n=2)
    states = [[branch.text for branch in s.outputs] for s in llm.stream("hi", params)]
    for before, after in pairwise(states):
        assert all(b.startswith(a) for a, b in zip(before, after, strict=True))
    (output,) = llm.generate(["hi"], params)
    assert states[-1] == [branch.text for branch in output.outputs]


def test_abort_ends_a_stream_early(bytes_model: Path, make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(bytes_model)
    stream = llm.stream("hi", SamplingParams(max_tokens=100, seed=2))
    next(stream)
    assert llm.abort(stream.request_id)
    last = list(stream)[-1]
    assert last.finished and last.outputs[0].finish_reason == "abort"
    assert len(last.outputs[0].token_ids) < 100
    assert not llm.abort(stream.request_id)
