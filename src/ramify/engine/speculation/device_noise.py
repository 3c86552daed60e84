"""The counter-based Gumbel noise of core/seeds.py in torch operations, on any device.

A draft model needs the noise itself, of few draws; the sampler's kernel never writes it down.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ramify.core.seeds import GOLDEN, MASK, MIX_A, MIX_B, mix64


def gumbel_noise_on(
    device: torch.device, draws: Sequence[tuple[int, int]], vocab_size: int
) -> Tensor:
    """Gumbel(0, 1) noise [len(draws), vocab_size] float32, a row per (seed, absolute position)."""
    streams = [_signed(mix64(mix64(seed) ^ at)) for seed, at in draws]
    tokens = torch.arange(1, vocab_size + 1, device=device)
    # int64 products wrap as those of uint64 do
    bits = torch.tensor(streams, device=device)[:, None] + tokens * _signed(GOLDEN)
    bits = (bits ^ _shifted(bits, 30)) * _signed(MIX_A)
    bits = (bits ^ _shifted(bits, 27)) * _signed(MIX_B)
    bits = bits ^ _shifted(bits, 31)
    uniform = (_shifted(bits, 40).double() + 0.5) * 2.0**-24
    return (-(-uniform.log()).log()).float()


def _signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    return value - (MASK + 1) if value >> 63 else value


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A logical shift to the right."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
