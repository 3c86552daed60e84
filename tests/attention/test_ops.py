"""The operator ramify::tree_attention: traced once, planned anew, checked when it runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ramify.attention import TreeAttention
from ramify.attention.ops import tree_attention
from ramify.attention.reference import tree_attention_ref
from ramify.core.errors import InputError
from ramify.testing.fp8 import FP8, quantise
from ramify.testing.inputs import make_inputs
from ramify.testing.trees import RandomForestSpec, few_shot, random_forest

Layers = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def two_layers(op: TreeAttention) -> Layers:
    """Two calls with arithmetic around them, the second with a window."""

    def layers(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, _ = op.run(q * 0.5, k, v)
        return op.run(q + out, k, v, window=9)

    return layers


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_graph_holds_two_calls_and_equals_eager(backend: str) -> None:
    case = random_forest(3, RandomForestSpec(num_rows=30))
    x = make_inputs(case)
    op = TreeAttention(4, 2, 64, backend=backend)
    op.plan(case.forest)
    layers = two_layers(op)
    expected = layers(x.q, x.k, x.v)
    counted = op.kv_bytes_read
    op.reset_counters()
    compiled = torch.compile(layers, fullgraph=True, backend="aot_eager")
    got = compiled(x.q, x.k, x.v)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    # tracing reads nothing
    assert op.kv_bytes_read == counted > 0


def test_new_plans_and_row_counts_do_not_recompile() -> None:
    op = TreeAttention(4, 2, 64)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(two_layers(op), fullgraph=True, backend=counter, dynamic=True)
    for seed, num_rows in enumerate([30, 30, 7, 64]):
        case = random_forest(seed, RandomForestSpec(num_rows=num_rows))
        x = make_inputs(case, seed=seed)
        op.plan(case.forest)
        out, lse = compiled(x.q, x.k, x.v)
        first, _ = tree_attention_ref(x.q * 0.5, x.k, x.v, case.forest)
        expected = tree_attention_ref(x.q + first, x.k, x.v, case.forest, window=9)
        torch.testing.assert_close(out, expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lse, expected[1], rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


def test_a_static_graph_serves_every_plan_of_its_shapes() -> None:
    op = TreeAttention(4, 2, 64)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(op.run, fullgraph=True, backend=counter, dynamic=False)
    x = make_inputs(few_shot(branches=4, prompt=20, generated=6))
    for prompt, generated in ((20, 6), (5, 6), (20, 1)):
        case = few_shot(branches=4, prompt=prompt, generated=generated)
        op.plan(case.forest)
        clean = (x.q, x.k.nan_to_num(), x.v.nan_to_num())
        expected = tree_attention_ref(*clean, case.forest)
        torch.testing.assert_close(compiled(*clean), expected, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
CASES = {
    "float32": (torch.float32, {}),
    "float64": (torch.float64, {"backend": "reference"}),
    "bfloat16": (torch.bfloat16, {}),
    "fp8": (torch.bfloat16, {"kv_dtype": FP8}),
}


@pytest.mark.parametrize("dtype, options", CASES.values(), ids=CASES)
def test_opcheck(dtype: torch.dtype, options: dict) -> None:
    case = few_shot(branches=3, prompt=20, generated=4)
    plain = make_inputs(case, dtype=dtype, poison=False, strided=True)
    x = quantise(plain) if "kv_dtype" in options else plain
    scales = (x.k_scale, x.v_scale) if "kv_dtype" in options else (None, None)
    op = TreeAttention(4, 2, 64, dtype=dtype, **options)
    op.plan(case.forest)
    # torch compares inputs before and after by arithmetic that it does not have for fp8
    checks = [name for name in OPCHECKS if name != "test_schema" or "kv_dtype" not in options]
    heads_first = x.q.transpose(0, 1).contiguous().transpose(0, 1)  # dense, but not contiguous
    for q in (x.q, heads_first):
        args = (q, x.k, x.v, op._op_id, 5, *scales)
        torch.library.opcheck(tree_attention, args, test_utils=checks)


def test_bad_inputs_of_compiled_code_raise_input_errors() -> None:
    case = few_shot(branches=2, prompt=6, generated=3)
    x = make_inputs(case)
    op = TreeAttention(4, 2, 64)
    compiled = torch.compile(op.run, fullgraph=True, backend="aot_eager")
    with pytest.raises(InputError, match=r"expected plan\(forest\) first"):
        compiled(x.q, x.k, x.v)
    op.plan(case.forest)
    with pytest.raises(InputError, match=r"q: expected shape \[2, 4, 64\], got \[1, 4, 64\]"):
        compiled(x.q[:1], x.k, x.v)
    with pytest.raises(InputError, match=r"k: expected torch.float32, got torch.float64"):
        compiled(x.q, x.k.double(), x.v)
    with pytest.raises(InputError, match=r"window: expected None or at least 1, got 0"):
        compiled(x.q, x.k, x.v, window=0)
    assert compiled(x.q, x.k, x.v)[0].shape == x.q.shape


def test_an_id_dies_with_its_operator() -> None:
    op = TreeAttention(4, 2, 64)
    x = make_inputs(few_shot(branches=2, prompt=6, generated=3))
    op_id = op._op_id
    assert TreeAttention(4, 2, 64)._op_id > op_id
    del op
    gc.collect()
    message = rf"op_id: expected the id of a living TreeAttention, got {op_id}"
    with pytest.raises(InputError, match=message):
        tree_attention(x.q, x.k, x.v, op_id, None, None, None)
