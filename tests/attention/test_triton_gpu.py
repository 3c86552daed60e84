"""The Triton backend on a GPU, for what the Hopper kernel does not do: against float64."""

from __future__ import annotations

import pytest
import torch

from ramify.attention import METHODS, TreeAttention
from ramify.attention.reference import tree_attention_ref
from ramify.testing.compare import assert_within_budget
from ramify.testing.fp8 import FP8, quantise
from ramify.testing.inputs import make_inputs
from ramify.testing.trees import RandomForestSpec, TreeCase, random_forest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
DEVICE, BACKEND = "cuda", "triton"

# every width of row tile is compiled by itself, so only one case has many rows
FEW = random_forest(1, RandomForestSpec(num_rows=7, max_length=300, max_nodes=20))
MANY = random_forest(2, RandomForestSpec(num_rows=60, max_length=60))
CASES: dict[str, tuple[TreeCase, int, int, int, torch.dtype, dict]] = {
    "float32": (MANY, 4, 2, 64, torch.float32, {}),
    "dim_256": (FEW, 2, 1, 256, torch.bfloat16, {"window": 200}),
    "fp8": (FEW, 4, 2, 128, torch.bfloat16, {"softcap": 20.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_hopper_kernel_does_not_do(name: str) -> None:
    case, q_heads, kv_heads, head_dim, dtype, layer = CASES[name]
    x = make_inputs(
        case,
        num_q_heads=q_heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=dtype,
        strided=True,
        device=DEVICE,
    )
    scales, kv_dtype, stored, exact_x = {}, None, x, x.to(torch.float64)
    if name == "fp8":
        stored, kv_dtype = quantise(x), FP8
        scales = {"k_scale": stored.k_scale, "v_scale": stored.v_scale}
        exact_x = stored.dequantised()
    exact, naive = (
        tree_attention_ref(y.q, y.k, y.v, case.forest, **layer)
        for y in (exact_x, exact_x.to(torch.float32))
    )
    for method in METHODS:
        op = TreeAttention(
            q_heads,
            kv_heads,
            head_dim,
            dtype=dtype,
            device=DEVICE,
            method=method,
            backend=BACKEND,
            softcap=layer.get("softcap"),
            kv_dtype=kv_dtype,
        )
        op.plan(case.forest)
        results = []
        for _ in range(2):
            op._backend._part_out.fill_(torch.nan)
            op._backend._part_lse.fill_(torch.nan)
            run = op.run(x.q, stored.k, stored.v, window=layer.get("window"), **scales)
            results.append(run)
        out, lse = results[0]
        plain = naive[0].to(dtype)
        assert_within_budget(out, exact[0], plain, name=f"{method}: out", factor=4.0, terms=1000)
        assert_within_budget(lse, exact[1], naive[1], name=f"{method}: lse", factor=8.0, terms=1000)
        assert all(map(torch.equal, *results)), f"{method}: bits changed"


@pytest.mark.parametrize("name", CASES)
def test_auto_takes_triton_for_it(name: str) -> None:
    _, q_heads, kv_heads, head_dim, dtype, _ = CASES[name]
    kv_dtype = FP8 if name == "fp8" else None
    op = TreeAttention(q_heads, kv_heads, head_dim, dtype=dtype, device=DEVICE, kv_dtype=kv_dtype)
    assert op.backend == "triton" and op.backend_reason.endswith("for backend hopper")
