"""Products of few rows: every variant compiles without a GPU; on one they meet float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ramify.core.nvrtc import compile_with_log
from ramify.models.kernels.hopper.product import (
    MAX_ROWS,
    ProductKernel,
    cut,
    gated_product,
    padded,
    product,
    shared_by,
    suits,
    turned_product,
    turns,
    widest_tile,
)
from ramify.testing.compare import assert_within_budget
from ramify.testing.compilers import has_nvrtc

NUM_SMS = 132  # of an H200
SHAPES = {"qkv": 6144, "out": 4096, "gate_up": 28672, "head": 128256, "small": 40}


@pytest.mark.skipif(not has_nvrtc(), reason="NVRTC is not installed")
@pytest.mark.parametrize("is_bf16", [True, False])
@pytest.mark.parametrize("rows", [8, 64, 128])
def test_variants_compile_without_spills_of_shared_memory(rows: int, is_bf16: bool) -> None:
    cuts = {cut(num_out, rows, NUM_SMS) for num_out in SHAPES.values()}
    variants = [
        ProductKernel(
            rows=rows, tile=tile, split=split, share=share, is_bf16=is_bf16, adds=split == 2
        )
        for tile, split, share in sorted(cuts)
    ]
    tile, share = widest_tile(rows), shared_by(rows)
    variants.append(
        ProductKernel(rows=rows, tile=tile, split=1, share=share, is_bf16=is_bf16, is_gated=True)
    )
    tile, split, share = cut(SHAPES["qkv"], rows, NUM_SMS)
    variants.append(
        ProductKernel(
            rows=rows, tile=tile, split=split, share=share, is_bf16=is_bf16, is_turned=True
        )
    )
    for variant in variants:
        assert variant.stages >= 3, "a ring must hide the memory's latency"
        _, log = compile_with_log(variant.source(), "sm_90a", ["--ptxas-options=-v"])
        assert "0 bytes spill stores" in log, (variant, log)
        assert "serialized" not in log, "products must be in flight together"


def test_cuts_keep_most_sms_reading() -> None:
    for name, num_out in SHAPES.items():
        for rows in (8, 64, 96, 128):
            tile, split, share = cut(num_out, rows, NUM_SMS)
            ctas = -(-num_out // tile) * split
            assert ctas >= 0.7 * NUM_SMS or (tile, split) == (64, 2), (name, rows)
            assert split * share < 4 or ctas <= 112, "clusters of four that fit at a time"
            assert split == cut(num_out, 8, NUM_SMS)[1], "bits do not depend on the rows"
    assert [padded(rows) for rows in (1, 8, 9, 50, 128)] == [8, 8, 16, 64, 128]


def test_what_does_not_suit() -> None:
    good = torch.zeros(5, 256, dtype=torch.bfloat16)
    assert suits(good) and suits(good.half())
    assert not suits(good.float()), "32 bit"
    assert not suits(good.t()), "the other axis contiguous"
    assert not suits(torch.zeros(5, 192, dtype=torch.bfloat16)), "an odd number of stages"
    assert not suits(torch.zeros(5, 260, dtype=torch.bfloat16)[:, 4:]), "misaligned"


def matrix(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cuda").to(dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 33, 64, 100, MAX_ROWS])
def test_products_meet_float64(rows: int, dtype: torch.dtype) -> None:
    for num_out, num_in in ((6144, 512), (28672, 256), (136, 1024), (4096, 14336)):
        x = matrix(rows, num_in, dtype=dtype, seed=rows)
        weight = matrix(num_out, num_in, dtype=dtype, seed=num_out) / num_in**0.5
        base = matrix(rows, num_out, dtype=dtype, seed=7)
        exact = x.double() @ weight.double().t()
        for adds in (False, True):
            outs = [base.clone() if adds else torch.full_like(base, torch.nan) for _ in range(2)]
            for out in outs:
                product(x, weight, out, adds=adds)
            wanted = exact + base.double() if adds else exact
            naive = (x @ weight.t()).float() + (base.float() if adds else 0.0)
            assert_within_budget(outs[0], wanted, naive.to(dtype), name=f"{num_out}, {adds}")
            assert torch.equal(*outs), "the same bits every run"
            one = base[-1:].clone()
            product(x[-1:].contiguous(), weight, one, adds=adds)
            assert torch.equal(one, outs[0][-1:]), "a row does not depend on the others"


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 50, MAX_ROWS])
def test_gated_products_meet_float64(rows: int) -> None:
    dtype, eps = torch.bfloat16, 1e-5
    for inner, num_in in ((14336, 512), (200, 256)):
        x = 3 * matrix(rows, num_in, dtype=dtype, seed=rows)
        weight = matrix(2 * inner, num_in, dtype=dtype, seed=inner) / num_in**0.5

        def gated(x: Tensor, weight: Tensor) -> Tensor:
            scale = (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()
            gate, up = ((x @ weight.t()) * scale).chunk(2, dim=1)
            return torch.nn.functional.silu(gate) * up

        out = torch.full((rows, inner), torch.nan, dtype=dtype, device="cuda")
        gated_product(x, weight, out, eps=eps)
        exact = gated(x.double(), weight.double())
        assert_within_budget(out, exact, gated(x, weight), name=str(inner))
        again = torch.empty_like(out)
        gated_product(x, weight, again, eps=eps)
        assert torch.equal(out, again), "the same bits every run"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 50, 64, 100, MAX_ROWS])
def test_turned_products_meet_float64(rows: int, dtype: torch.dtype) -> None:
    """Heads of Llama-3.1-8B; K and V go to scattered slots of pools inside a larger tensor."""
    num_q, num_kv, dim, hidden, eps = 32, 8, 128, 512, 1e-5
    x = 2 * matrix(rows, hidden, dtype=dtype, seed=rows)
    weight = matrix((num_q + 2 * num_kv) * dim, hidden, dtype=dtype, seed=3) / hidden**0.5
    k_pool, v_pool = torch.full((2, 300, num_kv, dim), torch.nan, dtype=dtype, device="cuda")
    assert turns(x, weight, k_pool, v_pool)
    slots = torch.randperm(300, generator=torch.Generator().manual_seed(rows))[:rows].cuda()
    positions = torch.arange(rows, device="cuda") * 37 % 1000
    angles = torch.arange(1000, device="cuda").double()[:, None] * 0.9 ** torch.arange(64).cuda()
    rotary = torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype)

    def turned(x: Tensor, weight: Tensor, rotary: Tensor) -> Tensor:
        scale = (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()
        heads = ((x @ weight.t()) * scale).view(rows, -1, dim)
        cosine, sine = rotary[positions][:, None].chunk(2, dim=2)
        first, second = heads[:, : num_q + num_kv].chunk(2, dim=2)
        return torch.cat(
            [
                torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=2),
                heads[:, num_q + num_kv :],
            ],
            dim=1,
        )

    exact = turned(x.double(), weight.double(), rotary.double())
    naive = turned(x, weight, rotary)
    found = []
    for _ in range(2):
        q = torch.full((rows, num_q, dim), torch.nan, dtype=dtype, device="cuda")
        k_pool.fill_(torch.nan), v_pool.fill_(torch.nan)
        turned_product(
            x, weight, positions=positions, slots=slots, q=q,
            k_pool=k_pool, v_pool=v_pool, rotary=rotary, eps=eps,
        )  # fmt: skip
        found.append(torch.cat([q, k_pool[slots], v_pool[slots]], dim=1))
    assert_within_budget(found[0], exact, naive, name="heads")
    assert torch.equal(*found), "the same bits every run"
    rest = torch.ones(300, dtype=torch.bool, device="cuda")
    rest[slots] = False
    assert k_pool[rest].isnan().all() and v_pool[rest].isnan().all(), "other slots stay"
    alone = torch.empty_like(q[-1:])
    turned_product(
        x[-1:].contiguous(), weight, positions=positions[-1:], slots=slots[-1:], q=alone,
        k_pool=k_pool, v_pool=v_pool, rotary=rotary, eps=eps,
    )  # fmt: skip
    assert torch.equal(alone, q[-1:]), "a row does not depend on the others"
