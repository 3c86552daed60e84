"""Qwen2 and Qwen2.5 (Qwen team 2024).

Llama with a bias on the q, k and v projections alone, and optionally a sliding window in the
layers from `max_window_layers` on (or in those that `layer_types` lists).
"""

from __future__ import annotations

from ramify.models.fields import ConfigFields
from ramify.models.traits import Family, Traits

LAYER_TYPES = ("full_attention", "sliding_attention")


def read_layer_windows(fields: ConfigFields, num_layers: int) -> tuple[int | None, ...]:
    """The window of each layer, as the Qwen families write them; raises ConfigError."""
    window = None
    if fields.flag("use_sliding_window", default=False):
        # both defaults are those of transformers' configuration classes
        is_null = "sliding_window" in fields.values and not fields.has("sliding_window")
        window = None if is_null else fields.integer("sliding_window", default=4096)
    layer_types = fields.texts("layer_types")
    if layer_types is None:
        first = fields.integer("max_window_layers", low=0, default=28)
        return tuple(window if layer >= first else None for layer in range(num_layers))
    if len(layer_types) != num_layers or not set(layer_types) <= set(LAYER_TYPES):
        raise fields.error("layer_types", f"{num_layers} names out of {', '.join(LAYER_TYPES)}")
    if window is None and "sliding_attention" in layer_types:
        raise fields.error("layer_types", "full_attention only, as no sliding window is in use")
    return tuple(window if name == "sliding_attention" else None for name in layer_types)


def _read_traits(fields: ConfigFields, num_layers: int) -> Traits:
    return Traits(layer_windows=read_layer_windows(fields, num_layers), has_qkv_bias=True)


QWEN2 = Family(
    architecture="Qwen2ForCausalLM",
    model_type="qwen2",
    read_traits=_read_traits,
)
