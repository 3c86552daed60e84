"""How a GPU's memory is shared out: weights, what a step needs, and the rest for the KV pool."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ramify.core.errors import ConfigError, expected_got
from ramify.models import Decoder, ModelConfig, Shard

GIB = 2**30
LIBRARIES = GIB
"""Bytes for the workspaces of libraries and for fragments."""
COMMUNICATOR = GIB // 2
"""Bytes for the buffers through which GPUs that share a model meet."""


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """Bytes of one GPU."""

    total: int
    used: int  # by others, and by this process beside the weights
    weights: int
    step: int  # activations and logits of the largest step
    limit: int  # of all together

    @property
    def kv_pool(self) -> int:
        """What is left for K and V; below 0 when nothing is."""
        return self.limit - self.used - self.weights - self.step

    def require(self, kv_bytes: int) -> None:
        """Raise ConfigError unless a pool of this size fits."""
        if self.kv_pool < kv_bytes:
            raise ConfigError(
                expected_got(
                    "device",
                    f"room for a KV pool of {kv_bytes / GIB:.2f} GiB",
                    f"{max(self.kv_pool, 0) / GIB:.2f} GiB ({self})",
                )
            )

    def __str__(self) -> str:
        sizes = {
            "limit": self.limit,
            "weights": self.weights,
            "a step": self.step,
            "in use": self.used,
        }
        parts = [f"{name} {size / GIB:.2f} GiB" for name, size in sizes.items()]
        return f"{self.total / GIB:.2f} GiB in all: " + ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A second model in the same memory: of all KV slots its pool gets a share.

    Attributes:
        token_bytes: of K and V of one of its tokens.
        step_bytes: its largest step; 0 on a CPU.
        share: of the slots, in (0, 1).
    """

    token_bytes: int
    step_bytes: int
    share: float

    @property
    def bytes_per_slot(self) -> int:
        """Bytes that the second pool takes for each slot of the first one's."""
        return math.ceil(self.token_bytes * self.share / (1 - self.share))

    def slots_left(self, num_slots: int) -> int:
        """What the first model gets of `num_slots`."""
        return num_slots - math.ceil(num_slots * self.share)

    def slots(self, first: int) -> int:
        """What the second model gets where the first has `first`."""
        return math.floor(first * self.share / (1 - self.share))


def kv_bytes_per_token(config: ModelConfig, itemsize: int) -> int:
    """Bytes of one token's K and V in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize


def num_parameters(config: ModelConfig, shard: Shard) -> int:
    """Weights of a part of a decoder, counted without making them."""
    decoder = Decoder(config, dtype=torch.float16, device=torch.device("meta"), shard=shard)
    return sum(weight.numel() for weight in decoder.parameters())


def step_bytes(config: ModelConfig, dtype: torch.dtype, *, max_rows: int, logit_rows: int) -> int:
    """Bytes at the peak of a step: the MLP's two products over all rows, and logits.

    Logits are there in the model's dtype and in float32.
    """
    heads = (2 * config.num_q_heads + 2 * config.num_kv_heads) * config.head_dim
    row = 3 * config.hidden_size + max(3 * config.intermediate_size, 2 * heads)
    logits = logit_rows * config.vocab_size * (dtype.itemsize + 8)
    return max_rows * row * dtype.itemsize + logits


def measure(
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    shard: Shard,
    *,
    utilization: float,
    max_rows: int,
    logit_rows: int,
) -> MemoryBudget:
    """The budget of a GPU before its part of the model is loaded.

    Raises:
        ConfigError: the weights cannot fit, or the model cannot be cut into as many parts.
    """
    free, total = torch.cuda.mem_get_info(device)
    libraries = LIBRARIES + (COMMUNICATOR if shard.size > 1 else 0)
    budget = MemoryBudget(
        total=total,
        used=total - free + libraries,
        weights=num_parameters(config, shard) * dtype.itemsize,
        step=step_bytes(shard.cut(config), dtype, max_rows=max_rows, logit_rows=logit_rows),
        limit=int(total * utilization),
    )
    budget.require(0)
    return budget
