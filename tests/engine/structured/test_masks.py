"""Masks against brute force: a token may come exactly if a text of the language goes on with it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ramify import StructuredOutput
from ramify.engine.codec import Codec
from ramify.engine.structured.compile import Grammars
from ramify.engine.structured.masks import allow, allowed_tokens, clear, contains

WORDS = ["sum: 3", "sum: 35", "sort 9", "é", "日本", "3", "35", "puzzle", "pu", "x" * 9, " a", "a "]


def bytes_of(codec: Codec) -> list[bytes]:
    """The bytes of each token by the tokenizer's own table; none of special ones."""
    assert codec.tokenizer is not None
    alphabet = byte_alphabet()
    pieces = codec.tokenizer.convert_ids_to_tokens(list(range(512)))
    special = set(codec.tokenizer.all_special_tokens)
    return [b"" if p in special else bytes(alphabet[c] for c in p) for p in pieces]


def byte_alphabet() -> dict[str, int]:
    """The printable characters that stand for bytes in byte-level BPE (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def test_masks_of_random_walks_equal_brute_force(codec: Codec, grammars: Grammars) -> None:
    pieces, rng = bytes_of(codec), random.Random(0)
    texts = [word.encode() for word in WORDS]
    num_steps = 0
    for _ in range(60):
        state, done = grammars.start(StructuredOutput(choices=WORDS)), b""
        while not state.is_over:
            wanted = {
                token
                for token, piece in enumerate(pieces)
                if piece and any(text.startswith(done + piece) for text in texts)
            }
            ends = {0, 2} if done in texts else set()
            (mask,) = grammars.masks.with_ends([state], [(0, 2)])
            found = {t for t in range(512) if contains(mask, t)}
            if not ends and len({pieces[token][:1] for token in wanted}) == 1:
                # of bytes that are forced, the parser lets the tokenizer's own token pass alone
                assert found and found <= wanted
            else:
                assert found == wanted | ends
            if not wanted:
                break
            token = rng.choice(sorted(wanted))  # what a mask leaves out is read all the same
            assert state.advance((token,)) == 1
            done += pieces[token]
            num_steps += 1
        assert done in texts
    assert num_steps > 100


def test_many_states_at_once_have_the_masks_of_each(grammars: Grammars) -> None:
    states = [grammars.start(StructuredOutput(choices=WORDS[: n + 1])) for n in range(9)]
    together = grammars.masks.of(states)
    alone = np.concatenate([grammars.masks.of([state]) for state in states])
    assert np.array_equal(together, alone) and together.shape == (9, 16)
    assert len(np.unique(together, axis=0)) > 3


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 100])
def test_bits_are_tokens(vocab: int, device: str) -> None:
    tokens = sorted(set(random.sample(range(vocab), (vocab + 1) // 2)))
    masks = np.zeros((2, -(-vocab // 32)), dtype=np.int32)
    allow(masks[0], tokens)
    allow(masks[1], range(vocab))
    clear(masks[1], tokens[0])
    found = allowed_tokens(masks, vocab, torch.device(device)).cpu()
    assert found.dtype == torch.bool and found.shape == (2, vocab)
    assert found[0].nonzero()[:, 0].tolist() == tokens
    assert found[1].sum() == vocab - 1 and not found[1, tokens[0]]
