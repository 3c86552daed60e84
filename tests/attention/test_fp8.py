"""fp8 K and V with scales per head: against float64 on the numbers that they stand for."""

from __future__ import annotations

import pytest
import torch

from ramify.attention import METHODS, TreeAttention
from ramify.attention.reference import tree_attention_ref
from ramify.core.errors import InputError
from ramify.testing.compare import assert_within_budget
from ramify.testing.fp8 import FP8, Fp8Inputs, quantise
from ramify.testing.inputs import make_inputs
from ramify.testing.trees import RandomForestSpec, TreeCase, few_shot, prefill, random_forest


def check(case: TreeCase, x: Fp8Inputs, **options: str | int | float | None) -> TreeAttention:
    """Run the backend first, then hold it to the error of float32 torch on the same numbers."""
    softcap, window = options.pop("softcap", None), options.pop("window", None)
    heads = (x.q.shape[1], x.k.shape[1], x.q.shape[2])
    op = TreeAttention(*heads, dtype=x.q.dtype, kv_dtype=FP8, softcap=softcap, **options)
    op.plan(case.forest)
    out, lse = op.run(x.q, x.k, x.v, window=window, k_scale=x.k_scale, v_scale=x.v_scale)
    assert out.dtype == x.q.dtype
    y = x.dequantised()
    exact, naive = (
        tree_attention_ref(z.q, z.k, z.v, case.forest, softcap=softcap, window=window)
        for z in (y, y.to(torch.float32))
    )
    assert_within_budget(out, exact[0], naive[0].to(out.dtype), name="out", factor=4.0)
    assert_within_budget(lse, exact[1], naive[1], name="lse", factor=4.0)
    return op


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_precisions_and_methods_on_the_cpu(dtype: torch.dtype, method: str) -> None:
    case = random_forest(6, RandomForestSpec(num_rows=50))
    x = quantise(make_inputs(case, dtype=dtype, strided=True))
    check(case, x, method=method, softcap=20.0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("window", [None, 1, 100])
def test_long_spans_and_gathered_tokens(window: int | None, backend: str) -> None:
    for case in (prefill(prompt=300, chunk=70), few_shot(9, 200, 5)):
        x = quantise(make_inputs(case, num_q_heads=8, head_dim=32, dtype=torch.bfloat16))
        check(case, x, backend=backend, window=window)


def test_the_reference_dequantises_in_its_own_precision() -> None:
    case = random_forest(2, RandomForestSpec(num_rows=20))
    x = quantise(make_inputs(case))
    scales = {"k_scale": x.k_scale, "v_scale": x.v_scale}
    got = tree_attention_ref(x.q.double(), x.k, x.v, case.forest, softcap=3.0, **scales)
    y = x.dequantised()
    expected = tree_attention_ref(y.q, y.k, y.v, case.forest, softcap=3.0)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_scale_defaults_to_ones_and_may_be_strided() -> None:
    case = few_shot(branches=3, prompt=20, generated=4)
    x = quantise(make_inputs(case))
    op = TreeAttention(4, 2, 64, kv_dtype=FP8)
    op.plan(case.forest)
    plain = op.run(x.q, x.k, x.v)
    ones = torch.ones(2, 3)[:, 1]
    for again in (op.run(x.q, x.k, x.v, k_scale=ones), op.run(x.q, x.k, x.v, None, None, ones)):
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    out, _ = op.run(x.q, x.k, x.v, v_scale=2 * ones)
    torch.testing.assert_close(out, 2 * plain[0])


def test_bytes_are_those_of_the_stored_elements() -> None:
    case = few_shot(branches=4, prompt=50, generated=8)
    x = quantise(make_inputs(case, dtype=torch.bfloat16))
    op = check(case, x, method="flatten")
    assert op.heads.token_bytes == 2 * 2 * 64
    assert op.kv_bytes_read == (50 + 4 * 8) * 2 * 2 * 64 == op.explain().kv_bytes_read
    assert op.heads.partial_bytes == 4 * 4 * 65


BAD_DTYPES = {
    "kv_dtype": (
        {"kv_dtype": torch.float8_e5m2},
        r"kv_dtype: expected None or torch.float8_e4m3fn, got torch.float8_e5m2",
    ),
    "float64": (
        {"kv_dtype": FP8, "dtype": torch.float64},
        r"dtype: expected at most 32 bits with kv_dtype torch.float8_e4m3fn, got torch.float64",
    ),
}


@pytest.mark.parametrize("change, message", BAD_DTYPES.values(), ids=BAD_DTYPES)
def test_dtypes_that_do_not_go_together(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TreeAttention(4, 2, 64, **change)


def test_a_backend_that_cannot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.attention.backends.cpu.CpuBackend.reads_fp8", False)
    with pytest.raises(InputError, match=r"kv_dtype: expected None for backend cpu .*float8_e4m3"):
        TreeAttention(4, 2, 64, kv_dtype=FP8)


def test_bad_tensors_name_both_sides() -> None:
    case = few_shot(branches=2, prompt=6, generated=3)
    x = quantise(make_inputs(case))
    op = TreeAttention(4, 2, 64, kv_dtype=FP8)
    op.plan(case.forest)
    bad = {
        r"k_scale: expected shape \[num_kv_heads\] = \[2\], got \[4\]": {"k_scale": torch.ones(4)},
        r"v_scale: expected shape \[num_kv_heads\] = \[2\], got \[\]": {"v_scale": torch.ones(())},
        r"v_scale: expected torch.float32, got torch.float64": {"v_scale": x.v_scale.double()},
        r"k_scale: expected device cpu, got meta": {"k_scale": x.k_scale.to("meta")},
    }
    for message, scales in bad.items():
        with pytest.raises(InputError, match=message):
            op.run(x.q, x.k, x.v, **scales)
    with pytest.raises(InputError, match=r"k: expected torch.float8_e4m3fn, got torch.float32"):
        op.run(x.q, x.k.float(), x.v)
    assert op.kv_bytes_read == 0
    plain = TreeAttention(4, 2, 64)
    plain.plan(case.forest)
    with pytest.raises(InputError, match=r"v: expected torch.float32, got torch.float8_e4m3fn"):
        plain.run(x.q, x.q.new_ones(15, 2, 64), x.v)
    y = make_inputs(case)
    message = r"v_scale: expected None without kv_dtype torch.float8_e4m3fn, got a tensor with"
    with pytest.raises(InputError, match=message):
        plain.run(y.q, y.k, y.v, v_scale=x.v_scale)
