"""Qwen3, the dense models (Qwen team 2025).

Qwen2 without the q, k, v biases (unless `attention_bias` asks for them on all four projections),
and with an RMSNorm over each query and key head before the rotation. Its `head_dim` is a field of
its own, not hidden_size / num_attention_heads.
"""

from __future__ import annotations

from ramify.models.fields import ConfigFields
from ramify.models.qwen2 import read_layer_windows
from ramify.models.traits import Family, Traits


def _read_traits(fields: ConfigFields, num_layers: int) -> Traits:
    has_attention_bias = fields.flag("attention_bias", default=False)
    return Traits(
        layer_windows=read_layer_windows(fields, num_layers),
        has_qkv_bias=has_attention_bias,
        has_out_bias=has_attention_bias,
        has_qk_norm=True,
    )


QWEN3 = Family(
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    read_traits=_read_traits,
    default_head_dim=128,
)
