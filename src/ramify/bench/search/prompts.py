"""Prompts as text: whoever resends must tokenise, so the model needs a tokenizer."""

from __future__ import annotations

import numpy as np

from ramify import LLM
from ramify.core.errors import InputError, expected_got
from ramify.profile.shape import random_prompt
from ramify.zoo.tasks import get_task


def text_prompt(llm: LLM, num_tokens: int, seed: int) -> str:
    """A text of `num_tokens` tokens, the same for the same seed: random words or solved puzzles.

    Raises InputError for a model without a tokenizer, or for fewer tokens than it puts in front.
    """
    codec = llm.engine.live.codec
    codec.require_text("resending")
    ids = random_prompt(num_tokens, codec.vocab_size, seed)
    if codec.encode_prompt(text := codec.decode(ids)) == ids:
        return text
    family, rng = get_task("puzzle"), np.random.default_rng(seed)
    text, ids = "", []
    while len(ids) < num_tokens:
        problem = family.generate(rng)
        text += problem.prompt + problem.answer + "\n"
        ids = codec.encode_prompt(text)
    cut = codec.decode(ids[:num_tokens], skip_special_tokens=True)
    if not cut:
        raise InputError(expected_got("prompt_tokens", "enough for a word", num_tokens))
    return cut
