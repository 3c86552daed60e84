"""Mistral 7B and its successors of the same architecture (Jiang et al. 2023).

Llama without biases, with one sliding window for all layers; `sliding_window` null (v0.2 on)
means full attention.
"""

from __future__ import annotations

from ramify.models.fields import ConfigFields
from ramify.models.traits import Family, Traits


def _read_traits(fields: ConfigFields, num_layers: int) -> Traits:
    # an absent field means the class default of transformers, a null means no window
    absent = None if "sliding_window" in fields.values else 4096
    window = fields.integer("sliding_window") if fields.has("sliding_window") else absent
    expected = "full_attention" if window is None else "sliding_attention"
    if any(layer_type != expected for layer_type in fields.texts("layer_types") or ()):
        raise fields.error(
            "layer_types", f"{expected} in every layer, to agree with sliding_window"
        )
    return Traits(layer_windows=(window,) * num_layers)


MISTRAL = Family(
    architecture="MistralForCausalLM",
    model_type="mistral",
    read_traits=_read_traits,
)
