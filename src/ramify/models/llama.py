"""Llama 2 and 3.x (Touvron et al. 2023; Llama team 2024).

The plain decoder: grouped-query attention (or one KV head per query head when
`num_key_value_heads` is absent, as in early files), full attention in every layer. The 3.1 models
scale their rotary frequencies (`llama3` in rope.py), the small 3.2 ones tie their embeddings;
`attention_bias` and `mlp_bias` put a bias on every projection of their block.
"""

from __future__ import annotations

from ramify.models.fields import ConfigFields
from ramify.models.traits import Family, Traits


def _read_traits(fields: ConfigFields, num_layers: int) -> Traits:
    has_attention_bias = fields.flag("attention_bias", default=False)
    return Traits(
        layer_windows=(None,) * num_layers,
        has_qkv_bias=has_attention_bias,
        has_out_bias=has_attention_bias,
        has_mlp_bias=fields.flag("mlp_bias", default=False),
    )


LLAMA = Family(
    architecture="LlamaForCausalLM",
    model_type="llama",
    read_traits=_read_traits,
    assumes_mha=True,
)
