"""Sampling on the device: the launches, and the results as the engine's lists.

`DeviceSampler.draw` never waits for the device and reuses its buffers, so it can be captured in a
CUDA graph; it gives the tokens of `sample` for the same float32 logits. Runs on NVIDIA GPUs, and on
a CPU under Triton's interpreter (TRITON_INTERPRET=1) for tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got
from ramify.engine.kernels.draw import draw_kernel, fold_kernel, rank_kernel
from ramify.engine.sample import SampleRow
from ramify.engine.sample_batch import SampleBatch

BLOCK = 2048  # tokens of a part: the same for every batch, or a row's last bits would move with it
RANK_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Results of the last draw, on the device; the next draw overwrites them."""

    tokens: Tensor  # [N] int64
    logprobs: Tensor  # [N] float32, natural log, of the model's own logits
    ranks: Tensor  # [N] int32, from 1; current only where ranks were asked for


class DeviceSampler:
    """Draws up to `capacity` tokens a step; fill `batch`, then `draw`."""

    def __init__(self, capacity: int, vocab_size: int, device: torch.device) -> None:
        self.batch = SampleBatch(capacity, device)
        self.vocab_size = vocab_size
        self._parts = -(-vocab_size // BLOCK)
        self._folded_parts = 1 << (self._parts - 1).bit_length()
        shape = (capacity, self._parts)
        self._best, self._max, self._sum = (torch.empty(shape, device=device) for _ in range(3))
        self._token = torch.empty(shape, dtype=torch.int32, device=device)
        self._drawn = Drawn(
            tokens=torch.zeros(capacity, dtype=torch.int64, device=device),
            logprobs=torch.zeros(capacity, device=device),
            ranks=torch.zeros(capacity, dtype=torch.int32, device=device),
        )

    def draw(
        self, logits: Tensor, *, num_draws: int | None = None, with_ranks: bool = False
    ) -> Drawn:
        """Draw a token for every entry of the batch.

        Args:
            logits: [rows, vocab] float32, bfloat16 or float16; the last axis contiguous.
            num_draws: entries looked at, for a graph of that size; None: all that were filled.
            with_ranks: also count the logits above each drawn one.
        Raises:
            InputError: the logits have another vocabulary or layout.
        """
        self._check(logits)
        batch, drawn = self.batch, self._drawn
        draws = batch.size if num_draws is None else num_draws
        source = (logits, logits.stride(0))
        parts = (self._best, self._token, self._max, self._sum)
        draw_kernel[(draws, self._parts)](
            *source, batch["row"], batch["temperature"], batch["stream"], batch["position"],
            *parts, self.vocab_size, BLOCK=BLOCK, FAST=not _is_interpreted(),
        )  # fmt: skip
        fold_kernel[(draws,)](
            *source, batch["row"], *parts, drawn.tokens, drawn.logprobs, self._parts,
            PARTS=self._folded_parts, num_warps=1,
        )  # fmt: skip
        if with_ranks:
            rank_kernel[(draws,)](
                *source, batch["row"], drawn.tokens, drawn.ranks, self.vocab_size,
                BLOCK=RANK_BLOCK, num_warps=8,
            )  # fmt: skip
        return drawn

    def _check(self, logits: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.vocab_size:
            wanted = f"[rows, {self.vocab_size}]"
            raise InputError(expected_got("logits", wanted, tuple(logits.shape)))
        if logits.stride(1) != 1:
            raise InputError(expected_got("logits", "a contiguous last axis", logits.stride()))


class DeviceDraws:
    """The draws of decode steps that follow one another, on the device; see decode_loop.Draws."""

    def __init__(self, capacity: int, vocab_size: int, device: torch.device) -> None:
        self._sampler = DeviceSampler(capacity, vocab_size, device)

    def fill(self, rows: Sequence[SampleRow]) -> None:
        """Take over how the next step draws; rows beyond draw nothing."""
        self._sampler.batch.fill(rows)

    def draw(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """A token [rows] int64 and its log-probability [rows] float32 for every row of logits."""
        rows = len(logits)
        drawn = self._sampler.draw(logits, num_draws=rows)
        self._sampler.batch.advance()
        return drawn.tokens[:rows], drawn.logprobs[:rows]


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
