"""The Triton kernels in Triton's interpreter against the fp64 reference.

Not collected by itself: test_triton.py runs it in a process of its own with TRITON_INTERPRET=1,
which has to be set before the kernels are imported. A program costs about a tenth of a second, so
shapes are small. The interpreter multiplies bf16 wrongly, hence float16 and float32 only; fp8's NaN
it reads as 480, so there the poison is a large number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from ramify.attention import METHODS, TreeAttention
from ramify.attention.plan.cost import Tuning
from ramify.attention.reference import tree_attention_ref, visibility_ref
from ramify.core.forest import Forest
from ramify.testing.compare import assert_within_budget
from ramify.testing.fp8 import FP8, quantise
from ramify.testing.inputs import AttentionInputs, make_inputs
from ramify.testing.trees import (
    RandomForestSpec,
    TreeCase,
    few_shot,
    prefill,
    random_forest,
)

SMALL = RandomForestSpec(num_roots=2, max_depth=4, max_nodes=8, max_length=30, num_rows=14)
LONG = dataclasses.replace(SMALL, max_nodes=5, max_length=160, num_rows=9)


def open_op(
    x: AttentionInputs,
    method: str = "auto",
    softcap: float | None = None,
    kv_dtype: torch.dtype | None = None,
) -> TreeAttention:
    op = TreeAttention(
        num_q_heads=x.q.shape[1],
        num_kv_heads=x.k.shape[1],
        head_dim=x.q.shape[2],
        dtype=x.q.dtype,
        method=method,
        backend="triton",
        softcap=softcap,
        kv_dtype=kv_dtype,
    )
    # a grid small enough that plans of this size are cut
    op._backend.tuning = Tuning(num_workers=4, packed_rows=64)
    return op


def check(
    case: TreeCase,
    x: AttentionInputs,
    method: str = "auto",
    *,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    """Run the kernels first, then hold them to a few times the error of torch in the same dtype."""
    op = open_op(x, method, softcap)
    op.plan(case.forest)
    out, lse = op.run(x.q, x.k, x.v, window=window)
    exact, naive = (
        tree_attention_ref(y.q, y.k, y.v, case.forest, window=window, softcap=softcap)
        for y in (x.to(torch.float64), x.to(torch.float32))
    )
    assert_within_budget(out, exact[0], naive[0].to(out.dtype), name="out", factor=4.0)
    assert_within_budget(
        lse, exact[1], naive[1], name="lse", factor=4.0 if lse_is_exact(x) else 1e4
    )


def lse_is_exact(x: AttentionInputs) -> bool:
    return x.q.dtype == torch.float32


@pytest.mark.parametrize("method", METHODS)
def test_methods_on_random_forests(method: str) -> None:
    case = random_forest(1, SMALL)
    check(case, make_inputs(case, head_dim=16, strided=True), method)


@pytest.mark.parametrize(
    "change",
    [{"window": 7}, {"softcap": 2.0}, {"window": 1000, "softcap": 30.0}],
    ids=str,
)
def test_windows_and_soft_caps_on_long_and_short_runs(change: dict) -> None:
    case = random_forest(6, LONG)
    check(case, make_inputs(case, num_q_heads=2, num_kv_heads=1, head_dim=16), **change)


HEADS: dict[str, tuple[int, int, int, torch.dtype]] = {
    "mha_odd": (3, 3, 10, torch.float32),
    "gqa_96": (4, 1, 96, torch.float16),
    "mqa_16": (16, 1, 64, torch.float16),
    "wide_256": (2, 1, 256, torch.float16),
}


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_heads_and_precisions(heads: tuple[int, int, int, torch.dtype]) -> None:
    case = random_forest(3, dataclasses.replace(SMALL, num_rows=6))
    q_heads, kv_heads, head_dim, dtype = heads
    x = make_inputs(
        case, num_q_heads=q_heads, num_kv_heads=kv_heads, head_dim=head_dim, dtype=dtype
    )
    check(case, x)


def test_a_window_reads_what_its_rows_see() -> None:
    """Chains and chunks with NaN before the first row's window: a token loaded there would show."""
    long = prefill(prompt=300, chunk=1)
    chunk = prefill(prompt=150, chunk=70)  # rows at positions 80 to 149
    branches = few_shot(branches=3, prompt=100, generated=20)
    for case, first_row in ((long, 299), (chunk, 80), (branches, 119)):
        x = make_inputs(case, num_q_heads=8, num_kv_heads=1, head_dim=16)
        window = 37
        slots, visible = visibility_ref(case.forest, window=window)
        unseen = slots[~visible.any(dim=0)]
        assert len(unseen) >= first_row - window + 1
        clean = make_inputs(case, num_q_heads=8, num_kv_heads=1, head_dim=16)
        x.k[unseen], x.v[unseen] = torch.nan, torch.nan
        op = open_op(x)
        op.plan(case.forest)
        out, lse = op.run(x.q, x.k, x.v, window=window)
        exact, naive = (
            tree_attention_ref(y.q, y.k, y.v, case.forest, window=window)
            for y in (clean.to(torch.float64), clean)
        )
        assert_within_budget(out, exact[0], naive[0], name="out", factor=4.0)
        assert_within_budget(lse, exact[1], naive[1], name="lse", factor=4.0)
        everything = op._backend._work.read_tokens * op.heads.token_bytes
        assert op.kv_bytes_read < everything
        if case is long:
            assert op.kv_bytes_read == window * op.heads.token_bytes


LONG_OPTIONS = {"window": 40, "softcap": 20.0}
FP8_CASES: dict[str, tuple[TreeCase, str, int, int, torch.dtype, dict]] = {
    "short_runs": (random_forest(1, SMALL), "auto", 4, 2, torch.float16, {}),
    "long_runs": (random_forest(6, LONG), "auto", 2, 2, torch.float32, LONG_OPTIONS),
    "widest_tile": (prefill(prompt=150, chunk=70), "node", 8, 1, torch.float16, {"softcap": 5.0}),
}


@pytest.mark.parametrize("case", FP8_CASES.values(), ids=FP8_CASES)
def test_fp8_keys_and_values(case: tuple[TreeCase, str, int, int, torch.dtype, dict]) -> None:
    tree, method, q_heads, kv_heads, dtype, options = case
    plain = make_inputs(
        tree, num_q_heads=q_heads, num_kv_heads=kv_heads, head_dim=16, dtype=dtype, strided=True
    )
    x = quantise(plain)
    op = open_op(plain, method, softcap=options.get("softcap"), kv_dtype=FP8)
    op.plan(tree.forest)
    scales = {"k_scale": x.k_scale, "v_scale": x.v_scale}
    out, lse = op.run(x.q, x.k, x.v, window=options.get("window"), **scales)
    y = x.dequantised()
    exact, naive = (
        tree_attention_ref(z.q, z.k, z.v, tree.forest, **options) for z in (y, y.to(torch.float32))
    )
    assert_within_budget(out, exact[0], naive[0].to(out.dtype), name="out", factor=4.0)
    # logits are sums of exact products in float32, whatever the inputs
    assert_within_budget(lse, exact[1], naive[1], name="lse", factor=8.0)


def test_a_chunk_of_many_rows_takes_the_widest_tile() -> None:
    case = prefill(prompt=150, chunk=70)
    x = make_inputs(case, num_q_heads=8, num_kv_heads=1, head_dim=16, dtype=torch.float16)
    for method in ("node", "flatten"):
        op = open_op(x, method)
        op.plan(case.forest)
        assert len(op._backend._work.units[128])
        check(case, x, method)
    check(case, x, "node", window=30)


def test_rows_that_see_nothing_and_no_rows() -> None:
    forest = Forest.from_nodes([-1, -1], [3, 0], [0, 3], [1, 0, 0], [0, 3, 0])
    op = TreeAttention(2, 1, 16, backend="triton")
    op.plan(forest)
    out, lse = op.run(torch.ones(3, 2, 16), torch.ones(4, 1, 16), torch.ones(4, 1, 16))
    assert out[1].eq(1).all() and out[[0, 2]].eq(0).all()
    assert lse[1].isfinite().all() and lse[[0, 2]].eq(-torch.inf).all()
    op.plan(Forest.from_nodes([-1], [3], [0], []))
    out, lse = op.run(torch.ones(0, 2, 16), torch.ones(4, 1, 16), torch.ones(4, 1, 16))
    assert out.shape == (0, 2, 16) and lse.shape == (0, 2)


def test_recycled_workspace_and_a_fixed_capacity_change_no_bit() -> None:
    cases = [random_forest(seed, dataclasses.replace(SMALL, num_rows=5)) for seed in (7, 8)]
    inputs = [make_inputs(case, num_q_heads=2, num_kv_heads=1, head_dim=16) for case in cases]
    fixed = open_op(inputs[0])
    fixed.reserve(rows=6, nodes=40)
    address = fixed._backend._buffer.device_ints.data_ptr()
    for case, x in zip(cases, inputs, strict=True):
        fresh = open_op(x)
        results = []
        for op in (fresh, fixed):
            op.plan(case.forest)
            op._backend._part_out.fill_(torch.nan)
            op._backend._part_lse.fill_(torch.nan)
            results.append(op.run(x.q, x.k, x.v))
        for got, other in zip(*results, strict=True):
            assert torch.equal(got, other)
    assert fixed._backend._buffer.device_ints.data_ptr() == address


def test_the_suite_is_interpreted() -> None:
    make: Callable[[], TreeAttention] = lambda: TreeAttention(2, 1, 16, backend="triton")  # noqa: E731
    assert make()._backend.is_interpreted
