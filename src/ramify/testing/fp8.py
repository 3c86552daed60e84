"""fp8 K and V for a tree case, with the exact numbers they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.testing.inputs import AttentionInputs

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, kw_only=True)
class Fp8Inputs:
    """q [Q, Hq, D]; k, v [num_slots, Hkv, D] float8_e4m3fn; k_scale, v_scale [Hkv] float32."""

    q: Tensor
    k: Tensor
    v: Tensor
    k_scale: Tensor
    v_scale: Tensor

    def dequantised(self) -> AttentionInputs:
        """The same numbers in float64: an error against them is the kernel's alone."""
        return AttentionInputs(
            q=self.q.double(),
            k=self.k.double() * self.k_scale.double()[:, None],
            v=self.v.double() * self.v_scale.double()[:, None],
        )


def quantise(x: AttentionInputs) -> Fp8Inputs:
    """Each head's largest number becomes the largest of fp8; NaN stays NaN."""
    k, k_scale = _quantised(x.k)
    v, v_scale = _quantised(x.v)
    return Fp8Inputs(q=x.q, k=k, v=v, k_scale=k_scale, v_scale=v_scale)


def _quantised(pool: Tensor) -> tuple[Tensor, Tensor]:
    largest = pool.float().nan_to_num(0.0).abs().amax(dim=(0, 2)).clamp_min(1e-6)
    scale = largest / torch.finfo(FP8).max
    stored = torch.empty_strided(pool.size(), pool.stride(), dtype=FP8, device=pool.device)
    return stored.copy_(pool.float() / scale[:, None]), scale
