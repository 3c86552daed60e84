"""fp8 weights: the error of every element, what scales are, and odd channels."""

from __future__ import annotations

import pytest
import torch

from ramify.models import quantise as module
from ramify.models.layers import allocate_weight
from ramify.models.quantise import FP8, quantise


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("chunk", [1, 200, 1 << 26])
def test_every_element_is_within_half_a_step(
    dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    weight = allocate_weight(48, 30, dtype, torch.device("cpu"))
    weight.copy_(torch.randn(48, 30) * torch.logspace(-3, 3, 30))
    weight[:, 5] = 0.0
    weight[0, 7] = 100 * weight[:, 7].abs().max()  # an outlier pushes its channel into subnormals
    before = weight.clone()
    got = quantise(weight)
    assert torch.equal(weight, before)
    assert got.data.dtype == FP8 and got.data.shape == (30, 48) and got.data.is_contiguous()
    exact, scale = weight.double(), got.scale.double()
    error = (got.data.double() * scale[:, None] - exact.t()).abs().t()
    # three bits of mantissa; a step of 2 ** -9 below 2 ** -6; the scale is rounded to float32
    assert (error <= torch.maximum(exact.abs() / 16, scale * 2.0**-10) + 1e-6 * exact.abs()).all()
    largest = exact.abs().amax(dim=0)
    torch.testing.assert_close(scale * 448, largest.where(largest > 0, 448.0), rtol=1e-6, atol=0.0)
    assert not got.data[5].float().any()
