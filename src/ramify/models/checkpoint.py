"""Where each tensor of a Hugging Face checkpoint goes in a Decoder's fused weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor

from ramify.models.decoder import Decoder
from ramify.models.layers import DecoderLayer
from ramify.models.shard import Shard


@dataclass(frozen=True)
class Slot:
    """A view into the decoder, and the shape of its tensor in the file (which may broadcast).

    A shard holds the tensor's range from `begin` on along `axis`.
    """

    target: Tensor
    shape: tuple[int, ...]
    axis: int | None = None
    begin: int = 0

    def part_of(self, tensor: Tensor) -> Tensor:
        """What of the file's tensor goes into the target."""
        if self.axis is None:
            return tensor
        return tensor.narrow(self.axis, self.begin, self.target.shape[self.axis])

    def fill_rows(self, first: int, rows: Tensor) -> None:
        """Copy what belongs here of rows [first, first + n) of the file's tensor."""
        if self.axis == 0:
            skip = max(0, self.begin - first)
            first, rows = max(0, first - self.begin), rows[skip:]
            rows = rows[: max(0, len(self.target) - first)]
        else:
            rows = self.part_of(rows)
        self.target[first : first + len(rows)].copy_(rows)


def decoder_slots(decoder: Decoder) -> dict[str, Slot]:
    """Tensor name in the checkpoint -> the view it fills. A tied head has no tensor of its own."""
    slots = {
        "model.embed_tokens.weight": _slot(decoder.embedding),
        "model.norm.weight": _slot(decoder.norm),
    }
    if decoder.head is not None:
        begin, _ = decoder.shard.tokens(decoder.config.vocab_size)
        shape = (decoder.config.vocab_size, decoder.config.hidden_size)
        slots["lm_head.weight"] = Slot(decoder.head.t(), shape, axis=0, begin=begin)
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer), "decoder.layers holds DecoderLayers"
        slots |= {f"model.layers.{index}.{name}": slot for name, slot in _layer_slots(layer)}
    return slots


def _slot(target: Tensor) -> Slot:
    return Slot(target, tuple(target.shape))


def _cut(target: Tensor, shard: Shard, axis: int) -> Slot:
    """A slot of equal parts along an axis, one per rank."""
    share = target.shape[axis]
    shape = list(target.shape)
    shape[axis] = share * shard.size
    return Slot(target, tuple(shape), axis=axis, begin=share * shard.rank)


def _layer_slots(layer: DecoderLayer) -> Iterator[tuple[str, Slot]]:
    q_width = layer.num_q_heads * layer.head_dim
    kv_width = (layer.num_heads - layer.num_qk_heads) * layer.head_dim
    inner, shard = layer.down.shape[0], layer.shard
    yield "input_layernorm.weight", _slot(layer.input_norm)
    yield "post_attention_layernorm.weight", _slot(layer.mlp_norm)
    attention_names = [f"self_attn.{name}_proj" for name in "qkv"]
    widths = [q_width, kv_width, kv_width]
    yield from _split(attention_names, widths, layer.qkv, layer.qkv_bias, shard)
    yield from _whole_out("self_attn.o_proj", layer.out, layer.out_bias, shard)
    mlp_names = ["mlp.gate_proj", "mlp.up_proj"]
    yield from _split(mlp_names, [inner, inner], layer.gate_up, layer.gate_up_bias, shard)
    yield from _whole_out("mlp.down_proj", layer.down, layer.down_bias, shard)
    if layer.qk_norm is not None:
        shape = (layer.head_dim,)
        yield "self_attn.q_norm.weight", Slot(layer.qk_norm[: layer.num_q_heads], shape)
        yield "self_attn.k_norm.weight", Slot(layer.qk_norm[layer.num_q_heads :], shape)


def _split(
    names: list[str], widths: list[int], weight: Tensor, bias: Tensor | None, shard: Shard
) -> Iterator[tuple[str, Slot]]:
    """The parts of a fused projection [in, sum(widths)]; files store them as [out, in].

    Each of them is cut among the ranks by its outputs.
    """
    for name, (begin, end) in zip(names, pairwise(accumulate(widths, initial=0)), strict=True):
        yield f"{name}.weight", _cut(weight[:, begin:end].t(), shard, axis=0)
        if bias is not None:
            yield f"{name}.bias", _cut(bias[begin:end], shard, axis=0)


def _whole_out(
    name: str, weight: Tensor, bias: Tensor | None, shard: Shard
) -> Iterator[tuple[str, Slot]]:
    """A projection [in, out], cut among the ranks by its inputs; each has the whole bias."""
    yield f"{name}.weight", _cut(weight.t(), shard, axis=1)
    if bias is not None:
        yield f"{name}.bias", _slot(bias)
