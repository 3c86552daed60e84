"""Products with fp8 weights where there is no GPU, interpreted, and on one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ramify.models.quantise import quantise
from ramify.testing.compare import assert_within_budget
from ramify.testing.processes import run_interpreted

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)


@pytest.mark.timeout(400)
def test_they_pass_their_suite_in_the_interpreter() -> None:
    run_interpreted(Path(__file__).parent / "interpreted_fp8.py")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 16, 31, 64, 65, 256, 300])
@pytest.mark.parametrize("shape", [(4096, 6144), (14336, 1024), (520, 200)], ids=str)
def test_on_a_gpu_err_no_more_than_torch(
    shape: tuple[int, int], rows: int, dtype: torch.dtype
) -> None:
    from ramify.models.products import Fp8Product

    num_in, num_out = shape
    x = torch.randn(rows, num_in, device="cuda").to(dtype)
    x[:, 7] *= 100.0  # as residual streams have them
    weight = quantise(torch.randn(num_in, num_out, device="cuda") / num_in**0.5)
    product = Fp8Product(weight)
    exact_weight = (weight.data.double() * weight.scale.double()[:, None]).t()
    exact = x.double() @ exact_weight
    # pieces keep bfloat16's eight bits of an activation
    naive = (x.bfloat16() @ exact_weight.bfloat16()).to(dtype)
    got = product.of(x)
    assert_within_budget(got, exact, naive, name="product", terms=num_in)
    assert all(torch.equal(product.of(x), got) for _ in range(3))
    residual = torch.randn(rows, num_out, device="cuda").to(dtype)
    added = residual.clone()
    product.add_to(added, x)
    assert_within_budget(added, residual + exact, naive + residual, name="sum", terms=num_in)
    assert not product._counters.any()


@pytest.mark.gpu
def test_pieces_of_bfloat16_are_exact_on_a_gpu() -> None:
    from ramify.models.kernels.pieces import BLOCK_K, split_rows

    x = torch.randn(40, 5 * BLOCK_K + 8, device="cuda").bfloat16()
    hi, lo, down = split_rows(x)
    factor = down.double().repeat_interleave(BLOCK_K, dim=1)[:, : x.shape[1]]
    error = ((hi.double() + lo.double()) * factor - x.double()).abs()
    assert (error <= x.double().abs().max() * 2.0**-16).all()
    assert (error[x.abs() > 0.05] == 0.0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [3, 40])
def test_numbers_that_are_none_stay_none(rows: int) -> None:
    """The interpreter takes the NaN of fp8 for a number, so this is for a GPU."""
    from ramify.models.products import Fp8Product

    x = torch.ones(rows, 256, dtype=torch.bfloat16, device="cuda")
    x[0, 3], x[1, 4] = torch.nan, torch.inf
    product = Fp8Product(quantise(torch.ones(256, 8, device="cuda")))
    finite = product.of(x).isfinite().all(dim=1)
    assert finite.tolist() == [False, False] + [True] * (rows - 2)
