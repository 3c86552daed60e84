"""The memory order of a weight is a matter of speed alone; rotation keeps lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ramify.models import layers, load_model
from ramify.models.layers import allocate_weight, project, project_onto, rms_norm, rotate

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_in", "num_out"), [(24, 40), (1024, 1025)])
def test_products_equal_linear(dtype: torch.dtype, num_in: int, num_out: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = allocate_weight(num_in, num_out, dtype, CPU)
    assert weight.shape == (num_in, num_out)
    weight.copy_(torch.randn(num_in, num_out, generator=generator))
    rows = torch.randn(5, num_in, generator=generator).to(dtype)
    bias = torch.randn(num_out, generator=generator).to(dtype)
    residual = torch.randn(5, num_out, generator=generator).to(dtype)
    before = residual.clone()
    exact = F.linear(rows.double(), weight.double().t(), bias.double())
    budget = {"rtol": 0.0, "atol": 4 * torch.finfo(dtype).eps * exact.abs().max().item()}
    torch.testing.assert_close(project(rows, weight, bias).double(), exact, **budget)
    exact = exact + residual
    got = project_onto(residual, rows, weight, bias)
    torch.testing.assert_close(got.double(), exact, **budget)
    assert torch.equal(residual, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4, 0.0])
def test_norm_errs_no_more_than_torch(dtype: torch.dtype, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (scale * torch.randn(7, 48, generator=generator)).to(dtype)
    weight = torch.randn(48, generator=generator).to(dtype)
    before = rows.clone()
    got = rms_norm(rows, weight, 1e-6)
    exact = F.rms_norm(rows.double(), (48,), weight.double(), 1e-6)
    budget = 4 * torch.finfo(dtype).eps * exact.abs().max().item()
    torch.testing.assert_close(got.double(), exact, rtol=0.0, atol=budget)
    bare = F.rms_norm(rows.double(), (48,), None, 1e-6)
    budget = 4 * torch.finfo(dtype).eps * bare.abs().max().item()
    torch.testing.assert_close(rms_norm(rows, None, 1e-6).double(), bare, rtol=0.0, atol=budget)
    assert torch.equal(rows, before)


def test_memory_order_does_not_change_logits(
    pristine_llama: Path, naive_attend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, positions = torch.arange(12), torch.arange(12)
    logits = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(layers, "IN_MAJOR_MAX_ELEMENTS", limit)
        decoder = load_model(pristine_llama)
        assert decoder.layers[0].qkv.is_contiguous() == (limit > 0)
        attend = naive_attend()
        attend.begin(torch.zeros_like(positions), positions)
        logits.append(decoder.forward(tokens, positions, attend))
    torch.testing.assert_close(logits[0], logits[1], rtol=0.0, atol=1e-5)


def test_rotation_turns_pairs_by_the_angle() -> None:
    heads = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angle = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)[:, None] * torch.arange(1.0, 5.0)
    cos = angle.cos().repeat(1, 2)[:, None]
    sin = torch.cat((-angle.sin(), angle.sin()), dim=-1)[:, None]
    got = rotate(heads, cos, sin)
    pairs = torch.complex(heads[..., :4], heads[..., 4:])
    want = pairs * torch.polar(torch.ones_like(angle), angle)[:, None]
    torch.testing.assert_close(torch.complex(got[..., :4], got[..., 4:]), want)
