"""The decoder's fast path on a GPU: products, attention, and at most two small kernels a layer.

A norm is no kernel here. RMSNorm(x) @ W is (x @ (diag(weight) W)) / rms(x), so the weight is folded
into the projection behind it, and the kernel that reads the projection divides. What is computed is
`Decoder.forward` up to rounding; keys and values go straight into the pool's slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ramify.core.errors import ConfigError, expected_got
from ramify.models.decoder import Decoder
from ramify.models.kernels.rms import is_interpreted
from ramify.models.kernels.rope_store import rope_store
from ramify.models.layers import DecoderLayer
from ramify.models.products import DenseProduct, Fp8Product, Heads, Product
from ramify.models.quantise import quantise

WEIGHTS = ("qkv", "out", "gate_up", "down")
# (layer, q [rows, Hq, D], window) -> [rows, Hq, D]; K and V of the rows are in the pool already
PoolAttendFn = Callable[[int, Tensor, int | None], Tensor]


@dataclass(frozen=True)
class _Layer:
    """A layer's settings and small tensors, and the products with its four weights."""

    plain: DecoderLayer
    qkv: Product
    out: Product
    gate_up: Product
    down: Product


class FusedDecoder:
    """Runs a decoder's weights with fused kernels; a step can be captured in a CUDA graph.

    The norms of `decoder` are folded into its weights in place, and set to one: it still means the
    same by itself, its folded weights rounded once more. In float16 the products hold numbers that
    are not normalised yet, so a residual stream beyond about 1000 in its root mean square may
    overflow; bfloat16 and float32 have no such limit.

    Args:
        fp8_weights: round the layers' weights to float8_e4m3fn with a scale per output channel (see
            quantise.py); embedding and head stay. `decoder` loses those weights, one at a time, and
            is of no use by itself any more.
    Raises:
        ConfigError: the decoder is not on a CUDA device, or with `fp8_weights` not of 16 bit or on
            a GPU that is neither Hopper nor a data-centre Blackwell.
    """

    def __init__(self, decoder: Decoder, *, fp8_weights: bool = False) -> None:
        _check_device(decoder)
        if fp8_weights:
            _check_fp8(decoder)
        self.decoder = decoder
        self.config = decoder.config
        self._head = DenseProduct(decoder.head_weight) if decoder.has_head else None
        self._layers: list[_Layer] = []
        for layer in decoder.layers:
            assert isinstance(layer, DecoderLayer), "decoder.layers holds DecoderLayers"
            fold_norm(layer.input_norm, layer.qkv)
            fold_norm(layer.mlp_norm, layer.gate_up)
            products = (_product(layer, name, fp8_weights) for name in WEIGHTS)
            self._layers.append(_Layer(layer, *products))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, those in fp8 among them, which are the decoder's no longer."""
        products = (getattr(layer, name) for layer in self._layers for name in WEIGHTS)
        fp8 = sum(product.num_bytes for product in products if isinstance(product, Fp8Product))
        return fp8 + sum(weight.nbytes for weight in self.decoder.parameters())

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        k_pool: Tensor,
        v_pool: Tensor,
        attend: PoolAttendFn,
        logit_rows: Tensor | None = None,
        *,
        k_scale: Tensor | None = None,
        v_scale: Tensor | None = None,
    ) -> Tensor:
        """Run one step: `logits_of` what `hidden`, which has the same arguments, gives."""
        rows = (token_ids, positions, slots)
        pools = (k_pool, v_pool)
        hidden = self.hidden(*rows, *pools, attend, logit_rows, k_scale=k_scale, v_scale=v_scale)
        return self.logits_of(hidden)

    @torch.inference_mode()
    def hidden(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        k_pool: Tensor,
        v_pool: Tensor,
        attend: PoolAttendFn,
        logit_rows: Tensor | None = None,
        *,
        k_scale: Tensor | None = None,
        v_scale: Tensor | None = None,
    ) -> Tensor:
        """Run one step up to the last norm; nothing waits for the device.

        Args:
            token_ids: [rows] int64, each in [0, vocab_size).
            positions: [rows] int64, each in [0, max_positions): tokens before it on its path.
            slots: [rows] int64: where the row's key and value go.
            k_pool, v_pool: [layers, num_slots, Hkv, D], last axis contiguous, in the decoder's
                dtype, or float8_e4m3fn with scales.
            attend: attention over the pool; called once per layer, in order.
            logit_rows: [n] int64, the rows whose logits are wanted, in any order; None: all.
            k_scale, v_scale: [layers, Hkv] float32: an fp8 pool holds k / k_scale and v / v_scale.
        Returns:
            [n, hidden_size] in the decoder's dtype: what the head reads.
        """
        x = F.embedding(token_ids, self.decoder.embedding)
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            pools = k_pool[index], v_pool[index]
            scales = [None if scale is None else scale[index] for scale in (k_scale, v_scale)]
            q = self._project(layer, x, positions, slots, *pools, *scales)
            attention = attend(index, q, layer.plain.window).flatten(1)
            if logit_rows is not None and index == last:
                # past the last attention, only the wanted rows matter
                x, attention = x.index_select(0, logit_rows), attention.index_select(0, logit_rows)
            x = self._add_attention_and_mlp(layer, x, attention)
        return F.rms_norm(x, x.shape[-1:], self.decoder.norm, self.config.norm_eps)

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor) -> Tensor:
        """The head on last hidden states [n, hidden_size]; without one these are the answer.

        Returns:
            [n, vocab_size] logits in the decoder's dtype: a float32 copy would cost more traffic
            than sampling, which reads them once and widens them itself.
        """
        if self._head is None:
            return hidden
        return self.decoder.shard.join(self._head.of(hidden), self.config.vocab_size)

    def _project(
        self,
        layer: _Layer,
        x: Tensor,
        positions: Tensor,
        slots: Tensor,
        k_pool: Tensor,
        v_pool: Tensor,
        k_scale: Tensor | None,
        v_scale: Tensor | None,
    ) -> Tensor:
        """Store K and V of the rows; returns their rotated queries [rows, Hq, D]."""
        plain, rotary = layer.plain, self.decoder.rotary
        q = x.new_empty(len(x), plain.num_q_heads, plain.head_dim)
        if plain.qkv_bias is None and plain.qk_norm is None and k_scale is None:
            heads = Heads(q, k_pool, v_pool, positions, slots, rotary)
            if layer.qkv.turn(x, heads, eps=plain.norm_eps):
                return q
        rope_store(
            layer.qkv.of(x),
            x,
            positions,
            slots,
            q=q,
            k_pool=k_pool,
            v_pool=v_pool,
            rotary=rotary,
            eps=plain.norm_eps,
            bias=plain.qkv_bias,
            qk_norm=plain.qk_norm,
            k_scale=k_scale,
            v_scale=v_scale,
        )
        return q

    def _add_attention_and_mlp(self, layer: _Layer, x: Tensor, attention: Tensor) -> Tensor:
        """The residual stream x [n, hidden] with both; x is overwritten."""
        plain = layer.plain
        x = self._add(layer.out, x, attention, plain.out_bias)
        activation = layer.gate_up.gate(x, eps=plain.norm_eps, bias=plain.gate_up_bias)
        return self._add(layer.down, x, activation, plain.down_bias)

    def _add(self, product: Product, x: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
        """x + rows @ weight + bias; x is overwritten, so that the product needs no copy of it.

        Of the ranks that share a model the first adds x, and the sum over the ranks is the result.
        """
        shard = self.decoder.shard
        if shard.is_first:
            product.add_to(x, rows)
        else:
            x = product.of(rows)
        shard.add_up(x)
        return x if bias is None else x.add_(bias)


@torch.no_grad()
def fold_norm(norm: Tensor, weight: Tensor) -> None:
    """weight [hidden, out] becomes diag(norm) @ weight, rounded once, and norm [hidden] ones."""
    if bool((norm == 1.0).all()):
        return
    # a float32 factor makes the product float32 too, without a float32 copy of the weight on a GPU
    weight.mul_(norm.float()[:, None])
    norm.fill_(1.0)


def _product(layer: DecoderLayer, name: str, is_fp8: bool) -> Product:
    weight: Tensor = getattr(layer, name)
    if not is_fp8:
        return DenseProduct(weight)
    product = Fp8Product(quantise(weight))
    layer.register_parameter(name, None)  # frees the weight before the next one is rounded
    return product


def _check_device(decoder: Decoder) -> None:
    if decoder.device.type != "cuda" and not is_interpreted():
        raise ConfigError(expected_got("device", "cuda", decoder.device))


def _check_fp8(decoder: Decoder) -> None:
    if decoder.dtype == torch.float32:
        raise ConfigError(expected_got("dtype", "16 bit with fp8 weights", decoder.dtype))
    if decoder.device.type == "cuda":
        capability = torch.cuda.get_device_capability(decoder.device)
        if capability[0] not in (9, 10):
            # the kernel's tiles need fp8 tensor cores and 200 KB of shared memory
            expected = "compute capability 9 or 10 with fp8 weights"
            raise ConfigError(expected_got("device", expected, ".".join(map(str, capability))))
