"""Weights in fp8: float8_e4m3fn with one scale per output channel. Activations stay 16 bit.

A step of few rows takes as long as reading the weights, and these are half as many bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
# float32 copies of this many elements at once: 256 MiB, and a few of them live
CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Fp8Weight:
    """What `rows [n, in] @ weight [in, out]` multiplies by: data.t() * scale.

    data: [out, in] float8_e4m3fn, contiguous. scale: [out] float32.
    """

    data: Tensor
    scale: Tensor


@torch.no_grad()
def quantise(weight: Tensor) -> Fp8Weight:
    """Round weight [in, out] to fp8; the largest number of each output channel becomes 448.

    A channel of zeros gets the scale 1. Elements are off by at most 1/16 of themselves or
    scale / 1024, whichever is more.
    """
    num_in, num_out = weight.shape
    data = torch.empty(num_out, num_in, dtype=FP8, device=weight.device)
    scale = torch.empty(num_out, dtype=torch.float32, device=weight.device)
    channels = max(1, CHUNK_ELEMENTS // num_in)
    for begin in range(0, num_out, channels):
        part = slice(begin, begin + channels)
        rows = weight[:, part].t().float()
        largest = rows.abs().amax(dim=1)
        scale[part] = torch.where(largest > 0.0, largest / FP8_MAX, 1.0)
        # dividing may round the largest number up beyond what fp8 holds, which would make it NaN
        data[part] = (rows / scale[part, None]).clamp_(-FP8_MAX, FP8_MAX).to(FP8)
    return Fp8Weight(data, scale)
