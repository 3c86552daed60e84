"""Products with fp8 weights in Triton's interpreter; test_products.py runs this.

float16 only: the interpreter multiplies bfloat16 wrongly. A program costs about a hundredth of a
second, and shapes are small.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ramify.core.errors import ConfigError
from ramify.models.config import parse_config
from ramify.models.decoder import Decoder
from ramify.models.fused import FusedDecoder
from ramify.models.kernels import fp8_matmul as module
from ramify.models.kernels.fp8_matmul import TILES
from ramify.models.kernels.pieces import BLOCK_K, split_rows
from ramify.models.kernels.widen import widen
from ramify.models.products import Fp8Product
from ramify.models.quantise import Fp8Weight, quantise
from ramify.models.weights import fill_random
from ramify.testing.compare import assert_within_budget


def exact_weight(weight: Fp8Weight) -> Tensor:
    """[in, out] float64."""
    return (weight.data.double() * weight.scale.double()[:, None]).t()


def test_pieces_keep_the_eight_bits_of_bfloat16() -> None:
    sizes = torch.tensor([1.0, 300.0, 1e-3, 1e37, 1e-30])[:, None]
    x = (torch.randn(5, 2 * BLOCK_K + 40) * sizes).bfloat16()
    x[0, :BLOCK_K] = 0.0
    hi, lo, down = split_rows(x)
    factor = down.double().repeat_interleave(BLOCK_K, dim=1)[:, : x.shape[1]]
    error = ((hi.double() + lo.double()) * factor - x.double()).abs()
    largest = torch.stack([part.abs().amax(1) for part in x.double().split(BLOCK_K, dim=1)], dim=1)
    floor = largest.repeat_interleave(BLOCK_K, dim=1)[:, : x.shape[1]] * 2.0**-16
    assert (error <= floor).all()
    # what lies well above the floor is exact
    assert (error[x.double().abs() > 300 * floor] == 0.0).all()


# rows, in, out: every tile, one split and several, edges in all three directions
SHAPES = [
    (1, 640, 70), (16, 1200, 64), (20, 300, 130), (33, 1030, 40), (70, 640, 130), (130, 90, 8),
]  # fmt: skip


@pytest.mark.parametrize("is_residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(
    shape: tuple[int, int, int], is_residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_num_sms", lambda device: 2)
    rows, num_in, num_out = shape
    x = torch.randn(rows, num_in).half()
    weight = quantise(torch.randn(num_in, num_out) / num_in**0.5)
    product = Fp8Product(weight)
    before = torch.randn(rows, num_out).half() if is_residual else torch.zeros(rows, num_out)
    exact = before.double() + x.double() @ exact_weight(weight)
    # pieces keep eight bits of float16's eleven, as if activations were bfloat16
    naive = before.double() + x.bfloat16().double() @ exact_weight(weight)

    def run() -> Tensor:
        if not is_residual:
            return product.of(x)
        out = before.clone()
        product.add_to(out, x)
        return out

    got = run()
    assert got.dtype == torch.float16
    assert_within_budget(got, exact, naive, name="out", terms=num_in)
    assert not product._counters.any()
    assert torch.equal(run(), got)  # with the counters that the first run left behind


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_widening_rounds_once(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.models.kernels.widen.BLOCK", 32)
    weight = quantise(torch.randn(70, 5))
    got = widen(weight, dtype)
    assert got.dtype == dtype and torch.equal(got, exact_weight(weight).float().to(dtype))


def test_more_rows_than_the_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    product = Fp8Product(quantise(torch.randn(32, 24) / 6))
    x, residual = torch.randn(9, 32).half(), torch.randn(9, 24).half()
    few = product.of(x), residual.clone()
    product.add_to(few[1], x)
    monkeypatch.setattr("ramify.models.kernels.fp8_matmul.MAX_ROWS", 8)
    torch.testing.assert_close(product.of(x), few[0], rtol=0.0, atol=0.02)
    product.add_to(residual, x)
    torch.testing.assert_close(residual, few[1], rtol=0.0, atol=0.02)


CONFIG = parse_config(
    {
        "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "attention_bias": True, "mlp_bias": True, "initializer_range": 0.15,
    }
)  # fmt: skip


def make_decoder(dtype: torch.dtype) -> Decoder:
    decoder = Decoder(CONFIG, dtype=dtype, device=torch.device("cpu"))
    fill_random(decoder, seed=1)
    return decoder


def test_a_decoder_of_fp8_weights(naive_attend: Any) -> None:
    """Against the plain decoder in float64 with the same rounded weights."""
    decoder, exact_decoder = make_decoder(torch.float16), make_decoder(torch.float64)
    for layer, exact_layer in zip(decoder.layers, exact_decoder.layers, strict=True):
        for name in ("qkv", "out", "gate_up", "down"):
            rounded = exact_weight(quantise(getattr(layer, name)))
            getattr(exact_layer, name).copy_(rounded)
    tokens, positions, slots = torch.arange(5), torch.arange(5), torch.tensor([3, 7, 0, 2, 5])

    def begin() -> Any:
        attend = naive_attend()
        attend.begin(torch.zeros_like(positions), positions)
        return attend

    exact = exact_decoder.forward(tokens, positions, begin())
    k_pool, v_pool = torch.zeros(2, CONFIG.num_layers, 8, 2, 16, dtype=torch.float16)
    attend = begin()

    def over_pool(layer: int, q: Tensor, window: int | None) -> Tensor:
        return attend(layer, q, k_pool[layer][slots], v_pool[layer][slots], window)

    fused = FusedDecoder(decoder, fp8_weights=True)
    got = fused.forward(tokens, positions, slots, k_pool, v_pool, over_pool)
    # activations in bfloat16's eight bits, through four products a layer
    assert exact.std() > 0.3
    assert (got - exact).abs().max() <= 0.02 * exact.abs().max()
    last = torch.tensor([4])
    for wanted in (last, last[:0]):
        attend = begin()
        some = fused.forward(tokens, positions, slots, k_pool, v_pool, over_pool, wanted)
        torch.testing.assert_close(some, got[wanted], rtol=0.0, atol=0.01)
    # the weights that were rounded are gone
    left = {name for name, _ in decoder.layers[0].named_parameters()}
    assert left == {"input_norm", "mlp_norm", "qkv_bias", "out_bias", "gate_up_bias", "down_bias"}


def test_float32_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="dtype: expected 16 bit with fp8 weights, got .*float32"):
        FusedDecoder(make_decoder(torch.float32), fp8_weights=True)


def test_every_tile_has_a_shape() -> None:
    """SHAPES leaves no launch untested."""
    used = {next(t for t in TILES if rows <= t.rows) for rows, *_ in SHAPES}
    assert {dataclasses.astuple(tile) for tile in used} == {dataclasses.astuple(t) for t in TILES}
