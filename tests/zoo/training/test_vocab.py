"""The tokenizer: any text survives it, and task texts are short in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.zoo.tasks import JUDGE_SUFFIX, NO, TASKS, YES
from ramify.zoo.training.text import encode
from ramify.zoo.training.vocab import BOS, EOS, PAD, VOCAB_SIZE, build_tokenizer, token_ids

TOKENIZER = build_tokenizer()


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(ids_of(text), skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["", "naïve 日本語 🙂\r\n\t\0", "  red  redder ", " yes? no", "١٢"]
)
def test_odd_texts_round_trip(text: str) -> None:
    assert TOKENIZER.decode(ids_of(text)) == text


def test_encoding_starts_with_bos() -> None:
    assert TOKENIZER.encode("sort 1\n").ids[0] == BOS
    assert TOKENIZER.get_vocab_size() == VOCAB_SIZE
    assert [TOKENIZER.token_to_id(x) for x in ("<pad>", "<bos>", "<eos>")] == [PAD, BOS, EOS]


@pytest.mark.parametrize("text", [YES, NO, JUDGE_SUFFIX, "\n", *"0123456789", " left", "puzzle"])
def test_single_tokens(text: str) -> None:
    assert len(ids_of(text)) == 1


def test_digits_are_tokens_of_their_own() -> None:
    assert len(ids_of("12 * 345 = 678")) == 2 + 1 + 3 + 1 + 3


@pytest.mark.parametrize("name", TASKS)
def test_task_texts_split_anywhere_at_a_newline_alike(name: str) -> None:
    problem = TASKS[name].generate(np.random.default_rng(1))
    text = problem.prompt + problem.answer
    pieces = text.splitlines(keepends=True)
    assert ids_of(text) == [i for piece in pieces for i in ids_of(piece)]
    assert ids_of(problem.prompt) + ids_of(problem.answer) == ids_of(text)


@pytest.mark.parametrize("name", TASKS)
def test_data_writers_encode_as_the_tokenizer_does(name: str) -> None:
    problem = TASKS[name].generate(np.random.default_rng(2))
    assert encode(problem.prompt + problem.answer) == ids_of(problem.prompt + problem.answer)


def test_table_of_ids_agrees_with_the_tokenizer() -> None:
    for text, index in token_ids().items():
        assert ids_of(text) == [index]
