"""The counter-based Gumbel noise of core/seeds.py in torch operations, on any device.

A draft model needs the noise itself, of few draws; the sampler's kernel never writes it down.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ramify.core.seeds import GOLDEN, MASK, MIX_A, MIX_B, mix64
from ramify.engine.sample import COLDEST


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


def with_noise(
    logits: Tensor,
    temperatures: Sequence[float],
    draws: Sequence[tuple[int, int]],
    of_row: Tensor | None = None,
) -> Tensor:
    """Logits [rows, vocab] with temperature and noise where a draw samples; float32.

    Args:
        temperatures, draws: [n], of each draw; see `gumbel_noise_on`.
        of_row: [rows] int64, the draw of each row; None: one for each.
    """
    logits = logits.float()
    warmth = [value if value >= COLDEST else 0.0 for value in temperatures]
    if not any(warmth):
        return logits
    heat = torch.tensor(warmth, device=logits.device)[:, None]
    noise = gumbel_noise_on(logits.device, draws, logits.shape[1])
    if of_row is not None:
        heat, noise = heat[of_row], noise[of_row]
    return torch.where(heat > 0, logits / heat.clamp(min=COLDEST) + noise, logits)


def _signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    return value - (MASK + 1) if value >> 63 else value


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A logical shift to the right."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
