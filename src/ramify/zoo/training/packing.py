"""Trees into fixed rows: batch i is a function of (seed, i) alone, whoever computes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramify.zoo.training.document_data import draw_documents
from ramify.zoo.training.list_data import draw_lists
from ramify.zoo.training.puzzle_data import UNSOLVABLE_SHARE, PuzzleData
from ramify.zoo.training.trees import NO_LABEL, Trees
from ramify.zoo.training.vocab import PAD


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Shape of a batch and shares of its tokens; puzzles take what the others leave."""

    rows: int = 32
    row_length: int = 4096
    seed: int = 0
    lists_share: float = 0.06
    documents_share: float = 0.25
    short_batches: int = 1500  # at first, short documents only
    max_number: int = 20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One training batch, every array [rows, row_length] int16; padding teaches nothing."""

    tokens: NDArray[np.int16]
    labels: NDArray[np.int16]
    positions: NDArray[np.int16]
    ends: NDArray[np.int16]  # within the row
    kinds: NDArray[np.int16]

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.tokens != PAD).sum())


def make_batch(config: DataConfig, puzzles: PuzzleData, index: int) -> Batch:
    """Batch number `index`."""
    rng = np.random.default_rng([config.seed, index])
    total = config.rows * config.row_length
    share = int(config.documents_share * total)
    short = index < config.short_batches
    documents = draw_documents(rng, share, config.row_length, short=short)
    lists = draw_lists(rng, int(config.lists_share * total) // 45)
    # a little more than fits: the last trees fill the gaps
    left = total - len(documents.tokens) - len(lists.tokens)
    solvable = puzzles.draw(rng, max(8, left // 150))
    hopeless = puzzles.draw_unsolvable(rng, max(1, int(len(solvable.bounds) * UNSOLVABLE_SHARE)))
    return _pack(config, rng, documents, [lists, hopeless, solvable])


class _Rows:
    """Rows being filled."""

    def __init__(self, config: DataConfig) -> None:
        shape = (config.rows, config.row_length)
        self.length = config.row_length
        self.used = np.zeros(config.rows, dtype=np.int64)
        self.tokens = np.full(shape, PAD, dtype=np.int16)
        self.labels = np.full(shape, NO_LABEL, dtype=np.int16)
        self.positions = np.zeros(shape, dtype=np.int16)
        self.ends = np.tile(np.arange(1, config.row_length + 1, dtype=np.int16), (config.rows, 1))
        self.kinds = np.zeros(shape, dtype=np.int16)

    def place(self, trees: Trees, index: int, row: int) -> bool:
        """Put a tree at the end of a row if it fits."""
        begin, end = int(trees.bounds[index]), int(trees.bounds[index + 1])
        at = int(self.used[row])
        if at + end - begin > self.length:
            return False
        to = slice(at, at + end - begin)
        self.tokens[row, to] = trees.tokens[begin:end]
        self.labels[row, to] = trees.labels[begin:end]
        self.positions[row, to] = trees.positions[begin:end]
        self.ends[row, to] = trees.ends[begin:end] + at
        self.kinds[row, to] = trees.kinds[begin:end]
        self.used[row] = to.stop
        return True


def _pack(
    config: DataConfig, rng: np.random.Generator, documents: Trees, others: list[Trees]
) -> Batch:
    """Long documents first, each into the emptiest row; then the rest, shuffled, row by row."""
    rows = _Rows(config)
    for index in np.argsort(-np.diff(documents.bounds)).tolist():
        rows.place(documents, index, int(rows.used.argmin()))
    waiting = _shuffled(rng, others)
    for row in range(config.rows):
        misses = 0
        while misses < 4 and (item := next(waiting, None)) is not None:
            misses = 0 if rows.place(*item, row) else misses + 1
    return Batch(
        tokens=rows.tokens,
        labels=rows.labels,
        positions=rows.positions,
        ends=rows.ends,
        kinds=rows.kinds,
    )


def _shuffled(rng: np.random.Generator, groups: list[Trees]) -> Iterator[tuple[Trees, int]]:
    """All trees of all groups in random order."""
    items = [(trees, i) for trees in groups for i in range(len(trees.bounds) - 1)]
    for index in rng.permutation(len(items)).tolist():
        yield items[index]
