"""The Hopper kernel on a GPU against float64, with NaN in every slot that it must not read.

What plans and schedules mean is tested without a GPU, in test_plan.py and test_schedule.py; growth,
graphs and the host's time are in test_hopper_steps.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify.attention import METHODS, TreeAttention
from ramify.attention.backends.hopper import ARCH
from ramify.attention.kernels.hopper.source import KernelConstants, hopper_source
from ramify.attention.plan.schedule import windowed_read
from ramify.attention.reference import tree_attention_ref
from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.core.nvrtc import compile_cubin
from ramify.testing.compare import assert_within_budget
from ramify.testing.inputs import AttentionInputs, make_inputs
from ramify.testing.trees import (
    RandomForestSpec,
    TreeCase,
    beam,
    chains,
    few_shot,
    prefill,
    random_forest,
    speculative,
)

pytestmark = pytest.mark.gpu
DEVICE, BACKEND = "cuda", "hopper"

Heads = tuple[int, int, int, torch.dtype]
BF16, FP16 = torch.bfloat16, torch.float16
GQA4: Heads = (8, 2, 128, BF16)
HEADS: dict[str, Heads] = {
    "gqa4_128": GQA4,
    "mha_128": (3, 3, 128, FP16),
    "gqa2_128": (4, 2, 128, BF16),
    "gqa5_128": (10, 2, 128, BF16),
    "gqa8_128": (8, 1, 128, FP16),
    "mqa16_128": (16, 1, 128, BF16),
    "mha_96": (2, 2, 96, BF16),
    "gqa4_96": (8, 2, 96, FP16),
    "gqa2_64": (4, 2, 64, FP16),
    "gqa8_64": (16, 2, 64, BF16),
    "mqa16_64": (16, 1, 64, FP16),
    "gqa4_32": (4, 1, 32, BF16),
}
# layers with a window, a soft cap or both
LAYERED: dict[str, Heads] = {
    "gqa4_128": GQA4,
    "gqa5_96": (5, 1, 96, FP16),
    "mha_64": (2, 2, 64, BF16),
}
LAYERS: list[dict[str, float | int]] = [
    {"window": 1},
    {"window": 100},
    {"softcap": 2.0},
    {"window": 300, "softcap": 30.0},
]
FORESTS = {
    "small": random_forest(1, RandomForestSpec(num_rows=60, max_depth=20, max_length=60)),
    "wide": random_forest(
        2, RandomForestSpec(num_roots=6, max_nodes=80, max_fan_out=64, num_rows=1024)
    ),
    "deep": random_forest(
        3, RandomForestSpec(num_roots=1, max_depth=20, max_nodes=80, max_length=9, num_rows=300)
    ),
    "long": random_forest(
        4, RandomForestSpec(num_roots=2, max_nodes=12, max_length=5000, num_rows=20)
    ),
    "ones": random_forest(5, RandomForestSpec(max_length=1, max_nodes=60, num_rows=5)),
}


@pytest.fixture(autouse=True, scope="module")
def compiled() -> Iterator[None]:
    """All variants at once: one after the other they take a second each."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    variants = [(heads, False, False) for heads in HEADS.values()]
    flags = [("softcap" in layer, "window" in layer) for layer in LAYERS]
    variants += [(heads, *flag) for heads, flag in product(LAYERED.values(), flags)]
    constants = {
        KernelConstants(
            head_dim=head_dim,
            group=q_heads // kv_heads,
            is_bf16=dtype == BF16,
            has_softcap=has_softcap,
            has_window=has_window,
        )
        for (q_heads, kv_heads, head_dim, dtype), has_softcap, has_window in variants
    }
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: compile_cubin(hopper_source(one), ARCH), constants))
    yield


def inputs(case: TreeCase, heads: Heads, **options: bool | int) -> AttentionInputs:
    q_heads, kv_heads, head_dim, dtype = heads
    shape = {"num_q_heads": q_heads, "num_kv_heads": kv_heads, "head_dim": head_dim}
    return make_inputs(case, **shape, dtype=dtype, device=DEVICE, **options)


def open_op(heads: Heads, method: str, **options: float | int | None) -> TreeAttention:
    *shape, dtype = heads
    return TreeAttention(
        *shape, dtype=dtype, device=DEVICE, method=method, backend=BACKEND, **options
    )


def run_poisoned(
    op: TreeAttention, x: AttentionInputs, window: int | None = None
) -> tuple[Tensor, Tensor]:
    """With NaN in the workspace, and in the memory that the results are likely to get."""
    op._backend._parts.fill_(torch.nan)
    torch.full_like(x.q, torch.nan)
    torch.full(x.q.shape[:2], torch.nan, dtype=torch.float32, device=DEVICE)
    return op.run(x.q, x.k, x.v, window=window)


class Oracle:
    """A case in float64, and what plain torch makes of it in the inputs' type."""

    def __init__(self, x: AttentionInputs, forest: Forest, **layer: float | int | None) -> None:
        def run(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            y = x.to(dtype)
            return tree_attention_ref(y.q, y.k, y.v, forest, **layer)

        self.exact, self.naive = run(torch.float64), run(x.q.dtype)[0]
        self.terms = x.q.shape[-1] + int(forest.path_len.max(initial=0))

    def check(self, out: Tensor, lse: Tensor, name: str) -> None:
        """Twice the error of torch in the inputs' type; an lse is a sum in float32."""
        assert_within_budget(out, self.exact[0], self.naive, name=f"{name}: out")
        assert_within_budget(
            lse,
            self.exact[1],
            self.exact[1].float(),
            name=f"{name}: lse",
            factor=4.0,
            terms=self.terms,
            magnitude=1.0,
        )


def assert_same(results: list[tuple[Tensor, Tensor]], name: str) -> None:
    for again in results[1:]:
        assert all(map(torch.equal, again, results[0])), f"{name}: bits changed"


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_random_forests(heads: Heads) -> None:
    for index, (name, case) in enumerate(FORESTS.items()):
        x = inputs(case, heads, seed=index, strided=index % 2 == 0)
        oracle = Oracle(x, case.forest)
        for method in METHODS:
            op = open_op(heads, method)
            op.plan(case.forest)
            results = [run_poisoned(op, x) for _ in range(3)]
            oracle.check(*results[0], f"{name}, {method}")
            assert_same(results, f"{name}, {method}")
            assert not op._backend._counters.any(), "counters are left as they were found"


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("heads", LAYERED.values(), ids=LAYERED)
def test_windows_and_soft_caps(heads: Heads, layer: dict[str, float | int]) -> None:
    cases = [FORESTS["small"], FORESTS["long"], prefill(prompt=900, chunk=400)]
    window, softcap = layer.get("window"), layer.get("softcap")
    for index, case in enumerate(cases):
        x = inputs(case, heads, seed=index, strided=index % 2 == 0)
        oracle = Oracle(x, case.forest, **layer)
        for method in METHODS:
            op = open_op(heads, method, softcap=softcap)
            op.plan(case.forest)
            results = [run_poisoned(op, x, window) for _ in range(2)]
            oracle.check(*results[0], f"{index}, {method}")
            assert_same(results, f"{index}, {method}")


NAMED = {
    "few_shot": few_shot(branches=70, prompt=900, generated=30),
    "beam": beam(),
    "speculative": speculative(),
    "chains": chains(count=40, length=130),
}


@pytest.mark.parametrize("case", NAMED.values(), ids=NAMED)
def test_named_shapes(case: TreeCase) -> None:
    x = inputs(case, GQA4)
    oracle = Oracle(x, case.forest)
    for method in METHODS:
        op = open_op(GQA4, method)
        op.plan(case.forest)
        oracle.check(*run_poisoned(op, x), method)


def test_one_plan_serves_layers_with_and_without_a_window() -> None:
    case = FORESTS["long"]
    op = open_op(GQA4, "fused")
    op.plan(case.forest)
    for layer, window in enumerate([None, 100, None, 1, 300]):
        x = inputs(case, GQA4, seed=layer)
        Oracle(x, case.forest, window=window).check(*run_poisoned(op, x, window), str(window))


def test_thousands_of_rows() -> None:
    """8192 rows: a chunk of 8000 over one prompt, and branches."""
    rows = [0] * 8000 + [1, 2] * 96
    seen = [*range(1, 8001), *([7] * 192)]
    forest = Forest.from_nodes([-1, 0, 0], [8000, 7, 7], [3, 8010, 8020], rows, seen)
    case = TreeCase(forest=forest, num_slots=8030)
    x = inputs(case, GQA4)
    oracle = Oracle(x, forest)
    for method in ("fused", "node", "per_branch"):
        op = open_op(GQA4, method)
        op.plan(forest)
        oracle.check(*run_poisoned(op, x), method)


def test_one_long_chain() -> None:
    forest = Forest.from_nodes([-1], [100_000], [5], [0])
    x = inputs(TreeCase(forest=forest, num_slots=100_010), GQA4)
    oracle = Oracle(x, forest)
    for method in METHODS:
        op = open_op(GQA4, method)
        op.plan(forest)
        results = [run_poisoned(op, x) for _ in range(3)]
        oracle.check(*results[0], method)
        assert_same(results, method)


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_see_nothing_and_no_rows(method: str) -> None:
    op = open_op(GQA4, method)
    op.plan(Forest.from_nodes([-1, -1], [3, 0], [0, 3], [1, 0, 0], [0, 3, 0]))
    ones = {
        n: torch.ones(n, heads, 128, dtype=BF16, device=DEVICE) for n, heads in ((3, 8), (4, 2))
    }
    out, lse = run_poisoned(op, AttentionInputs(q=ones[3], k=ones[4], v=ones[4]))
    assert out[1].eq(1).all() and out[[0, 2]].eq(0).all()
    assert lse[1].isfinite().all() and lse[[0, 2]].eq(-torch.inf).all()
    for forest in (Forest.from_nodes([], [], [], []), Forest.from_nodes([-1], [3], [0], [])):
        op.plan(forest)
        out, lse = op.run(ones[3][:0], ones[4], ones[4])
        assert out.shape == (0, 8, 128) and lse.shape == (0, 8)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "flatten"])
def test_with_fixed_cuts_a_trees_bits_ignore_its_neighbours(method: str) -> None:
    rng = np.random.default_rng(7)
    spec = RandomForestSpec(num_roots=1, max_nodes=20, max_length=400, num_rows=40)
    trees = [random_forest(seed, spec).forest for seed in range(4)]
    trees += [few_shot(48, 700, 30).forest, chains(1, 3000).forest]
    for first in (0, 4, 5):
        order = rng.permutation([t for t in range(6) if t != first]).tolist()
        order.insert(int(rng.integers(6)), first)
        together, alone, rows, num_slots = beside(trees, order, first)
        x = inputs(TreeCase(forest=together, num_slots=num_slots), GQA4, seed=first)
        op = open_op(GQA4, method, fixed_cuts=256)
        op.plan(together)
        among_others = tuple(y[rows].clone() for y in run_poisoned(op, x))
        op.plan(alone)
        by_itself = run_poisoned(op, replace(x, q=x.q[rows].contiguous()))
        assert_same([among_others, by_itself], f"tree {first}")


def beside(trees: list[Forest], order: list[int], first: int) -> tuple[Forest, Forest, slice, int]:
    """All trees in an order, one of them alone in the same slots, its rows, slots of the pool."""
    parts: list[tuple[list[int], ...]] = []
    num_nodes = num_rows = slot = 0
    for index in order:
        tree = trees[index]
        part = (
            np.where(tree.parent < 0, -1, tree.parent + num_nodes).tolist(),
            tree.length.tolist(),
            (slot + np.cumsum(tree.length) - tree.length).tolist(),
            (tree.query_node + num_nodes).tolist(),
            tree.query_len.tolist(),
        )
        if index == first:
            alone = Forest.from_nodes(tree.parent, part[1], part[2], tree.query_node, part[4])
            rows = slice(num_rows, num_rows + tree.num_rows)
        parts.append(part)
        num_nodes += tree.num_nodes
        num_rows += tree.num_rows
        slot += int(tree.length.sum()) + 3
    columns = [[value for part in parts for value in part[column]] for column in range(5)]
    return Forest.from_nodes(*columns), alone, rows, slot


def test_counters_hold_what_units_load() -> None:
    case = few_shot(64, 3000, 200)
    x = inputs(case, GQA4)
    read = {}
    for method in METHODS:
        op = open_op(GQA4, method)
        plan = op.plan(case.forest)
        schedule = op._backend._schedule
        op.run(x.q, x.k, x.v)
        read[method] = op.kv_bytes_read
        assert op.kv_bytes_read == schedule.read_tokens * op.heads.token_bytes
        assert plan.unique_tokens <= schedule.read_tokens <= plan.per_branch_tokens
        op.run(x.q, x.k, x.v, window=100)
        windowed = windowed_read(schedule, 100) * op.heads.token_bytes
        assert op.kv_bytes_read == read[method] + windowed
    assert read["fused"] < read["per_branch"] == read["lean"]


def test_strides_that_do_not_fit_are_copied_or_named() -> None:
    case = few_shot(5, 100, 10)
    x = inputs(case, GQA4)
    op = open_op(GQA4, "fused")
    op.plan(case.forest)
    expected = op.run(x.q, x.k, x.v)
    shifted = torch.zeros(*x.q.shape[:2], 129, dtype=BF16, device=DEVICE)[..., 1:]
    shifted.copy_(x.q)
    assert_same([expected, op.run(shifted, x.k, x.v)], "q")
    pool = torch.zeros(len(x.k), 2, 129, dtype=BF16, device=DEVICE)
    with pytest.raises(InputError, match="k: expected a contiguous last axis, other strides"):
        op.run(x.q, pool[..., 1:], x.v)
    with pytest.raises(InputError, match="v: expected a contiguous last axis, other strides"):
        op.run(x.q, x.k, pool[..., :128])
