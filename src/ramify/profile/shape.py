"""What decoding is measured on: so many trees, each a prompt with so many branches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramify.core.errors import InputError, expected_got

FIELDS = ("prompt", "branches", "trees")


@dataclass(frozen=True, kw_only=True)
class DecodeShape:
    """Equal trees whose prompts share nothing; every branch decodes a token a step."""

    prompt_tokens: int
    branches: int  # of each tree
    trees: int

    @property
    def num_rows(self) -> int:
        """Rows of a step, one per branch."""
        return self.branches * self.trees

    def unique_tokens(self, new_tokens: int) -> int:
        """Tokens in the pool when every branch has so many of its own."""
        return self.trees * (self.prompt_tokens + self.branches * new_tokens)

    def prompts(self, vocab_size: int, seed: int) -> list[list[int]]:
        """Random token ids, a prompt per tree."""
        return [
            random_prompt(self.prompt_tokens, vocab_size, seed + tree) for tree in range(self.trees)
        ]

    def __str__(self) -> str:
        return f"{self.prompt_tokens},{self.branches},{self.trees}"


def parse_shape(text: str) -> DecodeShape:
    """Read `prompt,branches,trees`, as in 4000,20,1. Raises InputError for anything else."""
    parts = text.split(",")
    if len(parts) != len(FIELDS) or not all(part.strip().isdecimal() for part in parts):
        raise InputError(expected_got("shape", f"{','.join(FIELDS)} as in 4000,20,1", repr(text)))
    numbers = [int(part) for part in parts]
    if min(numbers) < 1:
        raise InputError(expected_got("shape", "numbers of at least 1", repr(text)))
    prompt_tokens, branches, trees = numbers
    return DecodeShape(prompt_tokens=prompt_tokens, branches=branches, trees=trees)


def random_prompt(num_tokens: int, vocab_size: int, seed: int) -> list[int]:
    """Token ids that mean nothing, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.integers(2, vocab_size, num_tokens)]
