"""Scales of an fp8 KV pool: one for K and one for V of each layer, from what the model computes.

A pass over tokens spread over the vocabulary shows how large keys and values become. Twice that is
the largest number fp8 has to hold; what is larger still is stored as the largest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ramify.models import Decoder

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
NUM_TOKENS = 256
HEADROOM = 2.0


@torch.inference_mode()
def kv_scales(model: Decoder) -> tuple[Tensor, Tensor]:
    """Scales of K and V, [layers, Hkv] float32 each, equal over the heads of a layer."""
    config = model.config
    num_tokens = min(NUM_TOKENS, config.max_positions)
    largest = torch.zeros(2, config.num_layers, device=model.device)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        largest[:, layer] = torch.stack([k.abs().amax(), v.abs().amax()])
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out.transpose(0, 1)

    spread = torch.linspace(0, config.vocab_size - 1, num_tokens, device=model.device)
    positions = torch.arange(num_tokens, device=model.device)
    model(spread.long(), positions, attend, positions[-1:])
    model.shard.take_largest(largest)
    scales = (largest * (HEADROOM / FP8_MAX)).clamp(min=torch.finfo(torch.float32).tiny)
    k_scale, v_scale = scales[:, :, None].expand(-1, -1, config.num_kv_heads).contiguous()
    return k_scale, v_scale


def to_fp8(heads: Tensor, scale: Tensor) -> Tensor:
    """heads [rows, Hkv, D] / scale [Hkv], saturating, as float8_e4m3fn."""
    return (heads.float() / scale[:, None]).clamp(-FP8_MAX, FP8_MAX).to(FP8)
