"""How a GPU's memory is shared out: weights, what a step needs, and the rest for the KV pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.core.errors import ConfigError, expected_got
from ramify.models import Decoder, ModelConfig

GIB = 2**30
LIBRARIES = GIB
"""Bytes for the workspaces of libraries and for fragments."""


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


def weight_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of a decoder's weights, without making them."""
    decoder = Decoder(config, dtype=dtype, device=torch.device("meta"))
    return sum(weight.numel() * weight.itemsize for weight in decoder.parameters())


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
    *,
    utilization: float,
    max_rows: int,
    logit_rows: int,
) -> MemoryBudget:
    """The budget of a GPU before the weights are loaded. Raises ConfigError if they cannot fit."""
    free, total = torch.cuda.mem_get_info(device)
    budget = MemoryBudget(
        total=total,
        used=total - free + LIBRARIES,
        weights=weight_bytes(config, dtype),
        step=step_bytes(config, dtype, max_rows=max_rows, logit_rows=logit_rows),
        limit=int(total * utilization),
    )
    budget.require(0)
    return budget
