"""The fused decoder where there is no GPU, interpreted, and on one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ramify.core.errors import ConfigError
from ramify.models import Decoder, load_model
from ramify.testing.compare import assert_within_budget
from ramify.testing.models import save_tiny_llama
from ramify.testing.processes import run_interpreted

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)


@pytest.mark.timeout(400)
def test_it_passes_its_suite_in_the_interpreter() -> None:
    run_interpreted(Path(__file__).parent / "interpreted_fused.py")


def test_a_decoder_on_a_cpu_is_refused(tmp_path: Path) -> None:
    from ramify.models.fused import FusedDecoder

    save_tiny_llama(tmp_path)
    with pytest.raises(ConfigError, match="device: expected cuda, got cpu"):
        FusedDecoder(load_model(tmp_path, device="cpu"))


def on_gpu(*tensors: Tensor) -> list[Tensor]:
    return [tensor.cuda() for tensor in tensors]


@pytest.fixture
def decoders(tmp_path: Path) -> Callable[[torch.dtype], tuple[Decoder, Decoder]]:
    """dtype -> (the exact decoder in float64 on the CPU, one on the GPU), of equal weights."""
    save_tiny_llama(tmp_path)

    def make(dtype: torch.dtype) -> tuple[Decoder, Decoder]:
        decoder = load_model(tmp_path, device="cuda", dtype=dtype)
        for name, parameter in decoder.named_parameters():
            if name.endswith("norm"):  # ones would be no test of folding
                parameter.add_(0.3 * torch.randn_like(parameter))
        exact = Decoder(decoder.config, dtype=torch.float64, device=torch.device("cpu"))
        exact.load_state_dict(decoder.state_dict())
        return exact, decoder

    return make


def make_pools(decoder: Decoder, num_slots: int, dtype: torch.dtype) -> list[Tensor]:
    config = decoder.config
    shape = (config.num_layers, num_slots, config.num_kv_heads, config.head_dim)
    return [torch.zeros(shape, device="cuda").to(dtype) for _ in range(2)]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 40, 300])
def test_on_a_gpu_errs_no_more_than_the_plain_decoder(
    decoders: Any, naive_attend: Any, dtype: torch.dtype, rows: int
) -> None:
    from ramify.models.fused import FusedDecoder

    exact_decoder, decoder = decoders(dtype)
    tokens, positions = torch.randint(0, 96, (rows,)), torch.arange(rows)

    def begin(device: torch.device) -> Any:
        attend = naive_attend()
        attend.begin(torch.zeros_like(positions), positions)
        attend.sequence, attend.position = attend.sequence.to(device), attend.position.to(device)
        return attend

    exact, naive = (
        plain.forward(tokens.to(plain.device), positions.to(plain.device), begin(plain.device))
        for plain in (exact_decoder, decoder)
    )
    k_pool, v_pool = make_pools(decoder, 512, dtype)
    slots, attend = torch.randperm(512)[:rows].cuda(), begin(decoder.device)

    def over_pool(layer: int, q: Tensor, window: int | None) -> Tensor:
        out: Tensor = attend(layer, q, k_pool[layer][slots], v_pool[layer][slots], window)
        return out

    inputs = *on_gpu(tokens, positions), slots
    got = FusedDecoder(decoder).forward(*inputs, k_pool, v_pool, over_pool)
    assert got.dtype == dtype
    naive = naive.cpu().to(dtype)
    assert_within_budget(got.cpu(), exact.double(), naive, name="logits", terms=64)


@pytest.mark.gpu
def test_a_captured_step_replays_on_new_inputs(decoders: Any) -> None:
    """Attention is left out (the queries themselves come back): a graph of the rest."""
    from ramify.models.fused import FusedDecoder

    fused, rows = FusedDecoder(decoders(torch.bfloat16)[1]), 3
    pools = make_pools(fused.decoder, 64, torch.bfloat16)
    inputs = [torch.zeros(rows, dtype=torch.int64, device="cuda") for _ in range(3)]

    def step() -> Tensor:
        return fused.forward(*inputs, *pools, lambda layer, q, window: q)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(2):
        for static, high in zip(inputs, (96, 512, 64), strict=True):
            static.copy_(torch.randperm(high)[:rows])
        graph.replay()
        got = captured.clone(), *(pool.clone() for pool in pools)
        want = step(), *pools
        for replayed, eager in zip(got, want, strict=True):
            torch.testing.assert_close(replayed, eager, rtol=0.02, atol=0.1)
    assert all(pool.any() for pool in pools)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [2, 200])
def test_fp8_pools_hold_rounded_keys_and_values(decoders: Any, rows: int) -> None:
    from ramify.models.fused import FusedDecoder

    fused = FusedDecoder(decoders(torch.float32)[1])
    config = fused.config
    wide = make_pools(fused.decoder, 256, torch.float32)
    narrow = make_pools(fused.decoder, 256, torch.float8_e4m3fn)
    scales = torch.rand(2, config.num_layers, config.num_kv_heads, device="cuda") / 16 + 0.01
    inputs = on_gpu(
        torch.randint(0, 96, (rows,)), torch.randperm(512)[:rows], torch.randperm(256)[:rows]
    )
    first = fused.forward(*inputs, *wide, lambda layer, q, window: q)
    again = fused.forward(
        *inputs, *narrow, lambda layer, q, window: q, k_scale=scales[0], v_scale=scales[1]
    )
    torch.testing.assert_close(again, first)
    for pool, stored, scale in zip(wide, narrow, scales, strict=True):
        want = (pool / scale[:, None, :, None]).clamp(-448.0, 448.0)
        # half a step of three bits of mantissa, and of the smallest numbers
        assert ((stored.float() - want).abs() <= want.abs() / 15.9 + 2.0**-10).all()
