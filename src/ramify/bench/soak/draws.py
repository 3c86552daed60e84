"""Random prompts and parameters, sized so that a request fits the pool and a crowd does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ramify import LLM
from ramify.core.params import BeamSearchParams, SamplingParams

STEMS = 3
"""Prompts of a round continue one of so many beginnings."""

MOST_TOKENS = 64
"""That a branch generates."""

STOPS = ("\n", "e", "th", " a")


class Draws:
    """What the requests of one round ask for. Same generator, same model: same draws.

    Attributes:
        longest: tokens of the longest path that a request may need, a third of what would fit.
    """

    def __init__(self, llm: LLM, rng: np.random.Generator) -> None:
        limits = llm.engine.limits
        self.rng = rng
        self.num_slots = limits.num_slots
        self.max_context = limits.max_context
        self.longest = min(limits.num_slots, limits.max_context) // 3
        self.vocab_size = llm.engine.live.codec.vocab_size
        self.has_text = llm.engine.live.codec.tokenizer is not None
        self._stems = [self.tokens(int(rng.integers(2, self.longest // 2))) for _ in range(STEMS)]

    # ── numbers ──────────────────────────────────────────────────────────────────────────────────
    def chance(self, share: float) -> bool:
        """True in `share` of all draws."""
        return bool(self.rng.random() < share)

    def count(self, low: int, high: int) -> int:
        """An int in [low, high]."""
        return int(self.rng.integers(low, max(high, low) + 1))

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def seed(self) -> int:
        """A root seed."""
        return int(self.rng.integers(2**62))

    # ── prompts ──────────────────────────────────────────────────────────────────────────────────
    def tokens(self, count: int) -> list[int]:
        """Tokens without meaning."""
        return [int(t) for t in self.rng.integers(0, self.vocab_size, count)]

    def prompt(self) -> list[int]:
        """A prompt of its own, or one that begins like others: with a stem or a part of it."""
        if self.chance(0.3):
            return self.tokens(self.count(1, 2 * self.longest // 3))
        stem = self.pick(self._stems)
        if self.chance(0.3):
            stem = stem[: self.count(1, len(stem))]
        return stem + self.tokens(self.pick([0, 1, self.count(0, self.longest // 6)]))

    def room(self, prompt: Sequence[int]) -> int:
        """Tokens that may follow a prompt."""
        return min(self.longest - len(prompt), MOST_TOKENS)

    # ── parameters ───────────────────────────────────────────────────────────────────────────────
    def params(self, room: int, **fixed: Any) -> SamplingParams:
        """Sampling with any mix of rules; `fixed` goes before them."""
        max_tokens = self.count(1, room)
        rules: dict[str, Any] = {
            "n": self.pick([1, 1, 2, 3, 6]),
            "temperature": self.pick([0.0, 0.3, 0.8, 1.0, 1.7]),
            "top_k": self.pick([0, 0, 1, 5, 40]),
            "top_p": self.pick([1.0, 1.0, 0.9, 0.5]),
            "min_p": self.pick([0.0, 0.0, 0.05, 0.3]),
            "max_tokens": max_tokens,
            "min_tokens": self.pick([0, 0, self.count(0, max_tokens)]),
            "stop_token_ids": self.tokens(self.pick([0, 0, 3])),
            "ignore_eos": self.chance(0.5),
            "logprobs": self.pick([None, None, 0, 3]),
            "seed": self.seed(),
        }
        if self.chance(0.2):
            rules["repetition_penalty"] = float(self.rng.uniform(0.8, 1.4))
            rules["presence_penalty"] = float(self.rng.uniform(-0.5, 1.5))
            rules["frequency_penalty"] = float(self.rng.uniform(-0.2, 0.5))
        if self.chance(0.15):
            bias = self.rng.uniform(-8.0, 8.0, 3)
            rules["logit_bias"] = dict(zip(self.tokens(3), map(float, bias), strict=True))
        if self.has_text and self.chance(0.25):
            rules["stop"] = [self.pick(STOPS), self.pick(STOPS)]
            rules["include_stop_str_in_output"] = self.chance(0.5)
        return SamplingParams(**{**rules, **fixed})

    def node_params(self, room: int, **fixed: Any) -> SamplingParams:
        """Of a branch below others: no penalty that tells a prompt from what was generated."""
        params = self.params(room, n=1, **fixed)
        return replace(params, presence_penalty=0.0, frequency_penalty=0.0)

    def beam_params(self, room: int) -> BeamSearchParams:
        """Beam search by any rule."""
        width = self.count(1, 6)
        return BeamSearchParams(
            beam_width=width,
            max_tokens=self.count(1, min(room, 24)),
            length_penalty=self.pick([1.0, 0.0, 0.7, -0.5]),
            early_stopping=self.pick([False, True, "never"]),
            num_return=self.pick([None, 1]),
            ignore_eos=self.chance(0.5),
        )
