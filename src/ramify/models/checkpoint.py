"""Where each tensor of a Hugging Face checkpoint goes in a Decoder's fused weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor

from ramify.models.decoder import Decoder
from ramify.models.layers import DecoderLayer


@dataclass(frozen=True)
class Slot:
    """A view into the decoder, and the shape of its tensor in the file (which may broadcast)."""

    target: Tensor
    shape: tuple[int, ...]


def decoder_slots(decoder: Decoder) -> dict[str, Slot]:
    """Tensor name in the checkpoint -> the view it fills. A tied head has no tensor of its own."""
    slots = {
        "model.embed_tokens.weight": _slot(decoder.embedding),
        "model.norm.weight": _slot(decoder.norm),
    }
    if decoder.head is not None:
        slots["lm_head.weight"] = _slot(decoder.head.t())
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer), "decoder.layers holds DecoderLayers"
        slots |= {f"model.layers.{index}.{name}": slot for name, slot in _layer_slots(layer)}
    return slots


def _slot(target: Tensor) -> Slot:
    return Slot(target, tuple(target.shape))


def _layer_slots(layer: DecoderLayer) -> Iterator[tuple[str, Slot]]:
    q_width = layer.num_q_heads * layer.head_dim
    kv_width = (layer.num_heads - layer.num_qk_heads) * layer.head_dim
    inner = layer.down.shape[0]
    yield "input_layernorm.weight", _slot(layer.input_norm)
    yield "post_attention_layernorm.weight", _slot(layer.mlp_norm)
    attention_names = [f"self_attn.{name}_proj" for name in "qkv"]
    yield from _split(attention_names, [q_width, kv_width, kv_width], layer.qkv, layer.qkv_bias)
    yield from _split(["self_attn.o_proj"], [layer.out.shape[1]], layer.out, layer.out_bias)
    mlp_names = ["mlp.gate_proj", "mlp.up_proj"]
    yield from _split(mlp_names, [inner, inner], layer.gate_up, layer.gate_up_bias)
    yield from _split(["mlp.down_proj"], [layer.down.shape[1]], layer.down, layer.down_bias)
    if layer.qk_norm is not None:
        shape = (layer.head_dim,)
        yield "self_attn.q_norm.weight", Slot(layer.qk_norm[: layer.num_q_heads], shape)
        yield "self_attn.k_norm.weight", Slot(layer.qk_norm[layer.num_q_heads :], shape)


def _split(
    names: list[str], widths: list[int], weight: Tensor, bias: Tensor | None
) -> Iterator[tuple[str, Slot]]:
    """The parts of a fused projection [in, sum(widths)]; files store them as [out, in]."""
    for name, (begin, end) in zip(names, pairwise(accumulate(widths, initial=0)), strict=True):
        yield f"{name}.weight", _slot(weight[:, begin:end].t())
        if bias is not None:
            yield f"{name}.bias", _slot(bias[begin:end])
