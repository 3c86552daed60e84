"""Batches made ahead by worker processes, in a fixed order."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Iterator
from multiprocessing.queues import Queue

import numpy as np
from numpy.typing import NDArray

from ramify.zoo.training.packing import DataConfig, make_batch
from ramify.zoo.training.puzzle_data import PuzzleData

FIELDS = ("tokens", "labels", "positions", "ends", "kinds")
AHEAD = 6  # batches waiting per worker


def batches(
    config: DataConfig, puzzles: PuzzleData, num_batches: int, num_workers: int
) -> Iterator[NDArray[np.int16]]:
    """Yield batch 0, 1, ... as one array [5, rows, row_length] in the order of FIELDS."""
    if num_workers == 0:
        for index in range(num_batches):
            yield _stacked(config, puzzles, index)
        return
    # forked, so that the enumerated puzzle space is shared
    context = mp.get_context("fork")
    queues = [context.Queue(AHEAD) for _ in range(num_workers)]
    workers = [
        context.Process(
            target=_work,
            args=(config, puzzles, range(i, num_batches, num_workers), queue),
            daemon=True,
        )
        for i, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    try:
        for index in range(num_batches):
            yield queues[index % num_workers].get(timeout=120)
    finally:
        for worker in workers:
            worker.terminate()


def _work(
    config: DataConfig, puzzles: PuzzleData, indices: range, queue: Queue[NDArray[np.int16]]
) -> None:
    """One worker: its share of the batches, in order."""
    for index in indices:
        queue.put(_stacked(config, puzzles, index))


def _stacked(config: DataConfig, puzzles: PuzzleData, index: int) -> NDArray[np.int16]:
    batch = make_batch(config, puzzles, index)
    return np.stack([getattr(batch, name) for name in FIELDS])
