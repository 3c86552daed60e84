"""Sorting and merging as training trees: a prompt and its one answer."""

from __future__ import annotations

import numpy as np

from ramify.zoo.tasks.lists import MAX_DIGITS, answer_of, draw_merge, draw_sort
from ramify.zoo.training.text import Writer
from ramify.zoo.training.trees import LISTS, Trees

MERGE_SHARE = 0.3


def draw_lists(rng: np.random.Generator, num_trees: int) -> Trees:
    """Lists of 1 to 32 digits, longer ones more often (about 45 tokens each)."""
    writer = Writer(LISTS)
    for _ in range(num_trees):
        size = MAX_DIGITS - int(MAX_DIGITS * rng.random() ** 1.5)
        if size >= 2 and rng.random() < MERGE_SHARE:
            left = int(rng.integers(1, size))
            first, second = draw_merge(rng, left, size - left, heldout=False)
            prompt = f"merge {' '.join(map(str, first))} | {' '.join(map(str, second))}\n"
            digits = first + second
        else:
            digits = draw_sort(rng, size, heldout=False)
            prompt = f"sort {' '.join(map(str, digits))}\n"
        writer.start_tree(prompt, with_bos=rng.random() > 0.1)
        writer.answer("", answer_of(digits))
    return writer.build()
