"""Counts of the tokens on each draw's path, on the device, where steps that follow add to them.

A row of counts per draw, as long as the vocabulary, at fixed addresses: a captured CUDA graph
penalises by whatever was filled last, and counts what it draws. 512 draws from 128 thousand tokens
take 128 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ramify.engine.kernels.penalty import count_kernel, penalise_kernel
from ramify.engine.sample import SampleRow

IN_PROMPT = -(2**15)
"""The sign of a count: the prompt has the token."""


class TokenCounts:
    """Counts and penalties of up to `capacity` draws; see kernels/penalty.py.

    counts [capacity, V] int16; factors [3, capacity] float32, the repetition, frequency and
    presence penalty of each draw.
    """

    def __init__(self, capacity: int, vocab_size: int, device: torch.device) -> None:
        self.counts = torch.zeros(capacity, vocab_size, dtype=torch.int16, device=device)
        self.factors = torch.zeros(3, capacity, device=device)
        self._num_filled = 0

    def fill(self, rows: Sequence[SampleRow]) -> None:
        """Take over the histories of draws, without waiting for the device."""
        self.counts[: max(self._num_filled, len(rows))].zero_()
        self._num_filled = len(rows)
        factors = np.ones((3, self.factors.shape[1]), np.float32)
        factors[1:] = 0.0
        for draw, row in enumerate(rows):
            if row.history is not None:
                params = row.params
                penalties = (params.frequency_penalty, params.presence_penalty)
                factors[:, draw] = params.repetition_penalty, *penalties
        self.factors.copy_(self._send(factors), non_blocking=True)
        vocab_size = self.counts.shape[1]
        self._add(*_prompt_entries(rows, vocab_size))
        self._add(*_generated_entries(rows, vocab_size))

    def penalise(
        self, logits: Tensor, copies: Tensor, row: Tensor, indptr: Tensor, block: int
    ) -> None:
        """Copy the logits of edited draws, penalised.

        Args:
            logits: [rows, V], any float dtype, the last axis contiguous.
            copies: [draws, V] float32, the result.
            row, indptr: see `SampleBatch`.
        """
        draws, vocab_size = copies.shape
        penalise_kernel[(draws, -(-vocab_size // block))](
            logits, logits.stride(0), copies, row, indptr, self.counts, self.factors,
            self.factors.stride(0), vocab_size, BLOCK=block, enable_fp_fusion=False,
        )  # fmt: skip

    def add(self, row: Tensor, tokens: Tensor, draws: int) -> None:
        """Count what the first draws have drawn.

        Args:
            row: see `SampleBatch`.
            tokens: [capacity] int64.
        """
        count_kernel[(draws,)](row, tokens, self.counts, self.counts.shape[1], num_warps=1)

    def _add(self, index: np.ndarray, count: np.ndarray) -> None:
        """Add to counts, to each once at most."""
        if not len(index):
            return
        flat, at = self.counts.view(-1), self._send(index)
        flat.index_copy_(0, at, flat.index_select(0, at) + self._send(count))

    def _send(self, array: np.ndarray) -> Tensor:
        host, device = torch.from_numpy(array), self.counts.device
        return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def _prompt_entries(rows: Sequence[SampleRow], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens of prompts are counted, [n] int64, and their count, [n] int16."""
    tokens: dict[frozenset[int], np.ndarray] = {}
    index = [np.empty(0, np.int64)]
    for draw, row in enumerate(rows):
        if row.history is None or row.params.repetition_penalty == 1.0:
            continue
        prompt = row.history.prompt
        if prompt not in tokens:
            tokens[prompt] = np.fromiter(prompt, np.int64, len(prompt))
        index.append(draw * vocab_size + tokens[prompt])
    places = np.concatenate(index)
    return places, np.full(len(places), IN_PROMPT, np.int16)


def _generated_entries(rows: Sequence[SampleRow], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Likewise of generated tokens, and how often each was."""
    index, counts = [np.empty(0, np.int64)], [np.empty(0, np.int16)]
    for draw, row in enumerate(rows):
        if row.history is not None:
            generated = row.history.generated
            index.append(draw * vocab_size + np.fromiter(generated, np.int64, len(generated)))
            counts.append(np.fromiter(generated.values(), np.int16, len(generated)))
    return np.concatenate(index), np.concatenate(counts)
