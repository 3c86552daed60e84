"""Tensor parallelism: which part of a model a rank holds, and where the ranks meet.

A layer is cut between its two products: q, k and v by heads, gate and up by columns, the products
that follow by rows. What each rank then has of a layer's output is a summand, and the ranks meet
twice a layer to add. The embedding is whole on every rank, the head is cut by tokens.

Every rank ends a sum with the same bits (a reduction is made once and spread, or has two operands),
and all else is computed alike, so all ranks have the same logits to the bit and may draw tokens on
their own.

Source: Megatron-LM, Shoeybi et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from ramify.core.errors import ConfigError, expected_got
from ramify.models.config import ModelConfig


@dataclass(frozen=True)
class Shard:
    """Part `rank` of `size`. Sums and joins need torch's default process group of that size."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank brings in what must be added once, the residual."""
        return self.rank == 0

    def cut(self, config: ModelConfig) -> ModelConfig:
        """What this rank computes of a whole model: its heads and its columns of the MLP.

        Raises:
            ConfigError: they cannot be divided by `size`.
        """
        for name in ("num_kv_heads", "intermediate_size"):
            value = getattr(config, name)
            if value % self.size:
                expected = f"a divisor of the model's {name}, {value}"
                raise ConfigError(expected_got("tensor_parallel_size", expected, self.size))
        return replace(
            config,
            num_q_heads=config.num_q_heads // self.size,
            num_kv_heads=config.num_kv_heads // self.size,
            intermediate_size=config.intermediate_size // self.size,
        )

    def tokens(self, vocab_size: int) -> tuple[int, int]:
        """The range of tokens of which this rank computes logits: all, if they do not divide."""
        if vocab_size % self.size:
            return 0, vocab_size
        share = vocab_size // self.size
        return self.rank * share, (self.rank + 1) * share

    def add_up(self, summand: Tensor) -> None:
        """Replace a contiguous tensor by the sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(summand)

    def take_largest(self, values: Tensor) -> None:
        """Replace a contiguous tensor by the largest of the ranks, element by element, in place."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)

    def join(self, logits: Tensor, vocab_size: int) -> Tensor:
        """[n, this rank's tokens] to [n, vocab_size], on every rank."""
        if logits.shape[1] == vocab_size:
            return logits
        parts = [torch.empty_like(logits) for _ in range(self.size)]
        dist.all_gather(parts, logits)
        return torch.cat(parts, dim=1)


WHOLE = Shard()
