"""The cpu backend against the fp64 reference, with NaN in every slot it must not read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, HeadShape, TreeAttention, build_plan
from ramify.attention.backends import cpu_tiles
from ramify.attention.backends.cpu_spans import SCORES
from ramify.attention.backends.cpu_tiles import make_schedule
from ramify.attention.reference import tree_attention_ref
from ramify.core.forest import Forest
from ramify.testing.compare import assert_within_budget
from ramify.testing.inputs import AttentionInputs, make_inputs
from ramify.testing.trees import (
    NAMED,
    RandomForestSpec,
    TreeCase,
    few_shot,
    named,
    prefill,
    random_forest,
)

Options = dict[str, float | int | None]


def check(
    case: TreeCase,
    x: AttentionInputs,
    method: str,
    *,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    factor: float = 2.0,
) -> TreeAttention:
    """Run the backend first, then hold it to twice the error of a float32 (or wider) torch run.

    Behind an output are a product over head_dim and a sum over the tokens of the row, behind an
    lse (whose error is relative to the sum of weights, however small it is itself) the product.
    """
    heads = (x.q.shape[1], x.k.shape[1], x.q.shape[2])
    op = TreeAttention(*heads, dtype=x.q.dtype, method=method, scale=scale, softcap=softcap)
    plan = op.plan(case.forest)
    out, lse = op.run(x.q, x.k, x.v, window=window)
    assert out.dtype == x.q.dtype and out.shape == x.q.shape
    wide = x.to(torch.float32 if x.q.dtype.itemsize < 4 else x.q.dtype)
    exact, naive = (
        tree_attention_ref(y.q, y.k, y.v, case.forest, window=window, scale=scale, softcap=softcap)
        for y in (x.to(torch.float64), wide)
    )
    terms = heads[2] + int(case.forest.path_len.max(initial=0))
    assert_within_budget(
        out, exact[0], naive[0].to(out.dtype), name="out", factor=factor, terms=terms
    )
    assert_within_budget(
        lse, exact[1], naive[1], name="lse", factor=factor, terms=heads[2], magnitude=1.0
    )
    read = plan.read_tokens * op.heads.token_bytes
    assert op.kv_bytes_read == read if window is None else op.kv_bytes_read <= read
    return op


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_roots=st.integers(1, 6),
    max_fan_out=st.sampled_from([1, 3, 64]),
    num_rows=st.sampled_from([1, 3, 40, 120]),
    max_length=st.sampled_from([1, 12, 150]),
    window=st.sampled_from([None, None, 1, 9, 1000]),
    softcap=st.sampled_from([None, None, 2.0]),
)
def test_random_forests(
    method: str,
    seed: int,
    num_roots: int,
    max_fan_out: int,
    num_rows: int,
    max_length: int,
    window: int | None,
    softcap: float | None,
) -> None:
    spec = RandomForestSpec(
        num_roots=num_roots,
        max_depth=20,
        max_fan_out=max_fan_out,
        max_nodes=30,
        max_length=max_length,
        num_rows=num_rows,
    )
    case = random_forest(seed, spec)
    x = make_inputs(case, seed=seed % 1000, strided=seed % 2 == 0)
    check(case, x, method, window=window, softcap=softcap)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMED)
def test_named_shapes(name: str, method: str) -> None:
    case = named(name)
    check(case, make_inputs(case, head_dim=32), method)


HEADS = {
    "mha": (3, 3, 96),
    "gqa4": (8, 2, 128),
    "mqa16": (16, 1, 64),
    "wide": (2, 1, 256),
    "odd": (6, 2, 10),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_head_shapes(heads: tuple[int, int, int], method: str) -> None:
    case = random_forest(5, RandomForestSpec(num_rows=25))
    x = make_inputs(case, num_q_heads=heads[0], num_kv_heads=heads[1], head_dim=heads[2])
    check(case, x, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
def test_precisions(dtype: torch.dtype, method: str) -> None:
    case = random_forest(6, RandomForestSpec(num_rows=50))
    check(case, make_inputs(case, dtype=dtype, strided=True), method, scale=0.3, softcap=20.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("window", [1, 100, 300, 5000])
def test_windows_on_long_chunks(window: int, method: str) -> None:
    case = prefill(prompt=900, chunk=400)
    op = check(case, make_inputs(case, head_dim=32), method, window=window)
    if window == 100:
        # the first row stands at position 500, so nothing before position 401 is needed; items of
        # fused are tiles of at most 32 rows, each with the 99 tokens before its first row
        tiles = len(set(op.plan(case.forest).item_hi.tolist())) if method == "fused" else 1
        assert tiles == (13 if method == "fused" else 1)
        assert op.kv_bytes_read == (400 + 99 * tiles) * op.heads.token_bytes


def test_huge_and_tiny_logits() -> None:
    case = random_forest(7, RandomForestSpec(num_rows=40))
    x = make_inputs(case)
    for method in METHODS:
        for scale in (1e-6, 1e-30):
            check(case, x, method, scale=scale)
        # at logits of 1e4 one rounding decides between near ties, so errors are a matter of luck
        check(case, x, method, scale=1e3, factor=16.0)


@pytest.mark.parametrize("method", ["per_branch", "flatten"])
def test_thousands_of_rows(method: str) -> None:
    """8192 rows: a chunk of 8000 over one prompt plus branches, cut into bounded score matrices."""
    rows = [0] * 8000 + [1, 2] * 96
    seen = [*range(1, 8001), *([7] * 192)]
    forest = Forest.from_nodes([-1, 0, 0], [8000, 7, 7], [3, 8010, 8020], rows, seen)
    case = TreeCase(forest=forest, num_slots=8030)
    x = make_inputs(case, num_q_heads=2, num_kv_heads=1, head_dim=16)
    op = TreeAttention(2, 1, 16, method=method)
    op.plan(forest)
    out, lse = op.run(x.q, x.k, x.v)
    # a few of the rows, alone
    some = torch.tensor([0, 1, 255, 256, 4097, 7999, 8000, 8001, 8191])
    few = Forest.from_nodes(
        [-1, 0, 0],
        [8000, 7, 7],
        [3, 8010, 8020],
        [rows[index] for index in some],
        [seen[index] for index in some],
    )
    exact = tree_attention_ref(x.q[some].double(), x.k.double(), x.v.double(), few)
    naive = tree_attention_ref(x.q[some], x.k, x.v, few)
    assert_within_budget(out[some], exact[0], naive[0], name="out", terms=8000 + 16)
    assert_within_budget(lse[some], exact[1], naive[1], name="lse", terms=16, magnitude=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_score_matrices_stay_bounded(method: str) -> None:
    heads = HeadShape(num_q_heads=8, num_kv_heads=2, head_dim=64, itemsize=4)
    for case in (prefill(4000, 2000), few_shot(300, 3000, 20), few_shot(2, 50_000, 5)):
        schedule = make_schedule(build_plan(case.forest, method), heads)
        for tile in schedule.tiles:
            tokens = sum(
                len(part) if isinstance(part, torch.Tensor) else part[1] - part[0]
                for part in tile.segments
            )
            for rows in tile.row_tiles:
                assert heads.num_q_heads * (rows.hi - rows.lo) * tokens <= 2 * SCORES
        for batch in schedule.batches:
            cells = len(batch.rows) // batch.size * len(batch.slots)
            assert heads.num_q_heads * cells <= 2 * SCORES


def test_private_tails_run_as_one_batch() -> None:
    heads = HeadShape(num_q_heads=8, num_kv_heads=2, head_dim=64, itemsize=4)
    schedule = make_schedule(build_plan(few_shot(16, 2000, 64).forest, "flatten"), heads)
    assert len(schedule.tiles) == 1 and len(schedule.batches) == 1
    assert schedule.batches[0].num_tokens == 16 * 64


@pytest.mark.parametrize("method", METHODS)
def test_runs_repeat_bit_for_bit(method: str) -> None:
    case = random_forest(8, RandomForestSpec(num_rows=60))
    x = make_inputs(case)
    results = []
    for _ in range(2):
        op = TreeAttention(4, 2, 64, method=method)
        op.plan(case.forest)
        results += [op.run(x.q, x.k, x.v) for _ in range(2)]
    for out, lse in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(lse, results[0][1])


def test_shuffled_rows_are_the_same_rows() -> None:
    case = random_forest(9, RandomForestSpec(num_rows=30))
    forest, x = case.forest, make_inputs(case)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = Forest(
        parent=forest.parent,
        length=forest.length,
        run_indptr=forest.run_indptr,
        run_begin=forest.run_begin,
        run_len=forest.run_len,
        query_node=forest.query_node[order.numpy()],
        query_len=forest.query_len[order.numpy()],
    )
    op = TreeAttention(4, 2, 64)
    op.plan(forest)
    out, lse = op.run(x.q, x.k, x.v)
    op.plan(shuffled)
    again, lse_again = op.run(x.q[order], x.k, x.v)
    torch.testing.assert_close(again, out[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(lse_again, lse[order], rtol=1e-5, atol=1e-6)


def test_inputs_are_not_modified() -> None:
    case = random_forest(10)
    x = make_inputs(case)
    before = x.to(torch.float64)
    check(case, x, "flatten", softcap=5.0)
    for now, then in ((x.q, before.q), (x.k, before.k), (x.v, before.v)):
        assert torch.equal(now.double().nan_to_num(9e9), then.nan_to_num(9e9))


def test_one_plan_serves_layers_with_and_without_a_window() -> None:
    case = random_forest(11, RandomForestSpec(num_rows=40))
    op = TreeAttention(4, 2, 64, method="flatten")
    op.plan(case.forest)
    for layer, window in enumerate([None, 5, None, 5, 7]):
        x = make_inputs(case, seed=layer)
        out, _ = op.run(x.q, x.k, x.v, window=window)
        exact = tree_attention_ref(
            *(y.double() for y in (x.q, x.k, x.v)), case.forest, window=window
        )
        torch.testing.assert_close(out.double(), exact[0], rtol=1e-4, atol=1e-5)


def test_padding_of_a_batch_is_not_counted_and_not_seen() -> None:
    """Tails of 33 to 60 tokens share a batch padded to the longest."""
    tails = [33, 47, 52, 60]
    begin = [0, 110, 150, 200, 255]
    forest = Forest.from_nodes([-1, 0, 0, 0, 0], [100, *tails], begin, [1, 2, 3, 4])
    case = TreeCase(forest=forest, num_slots=320)
    op = check(case, make_inputs(case, num_q_heads=16, num_kv_heads=4, head_dim=128), "node")
    schedule = cpu_tiles.make_schedule(build_plan(forest, "node"), op.heads)
    assert [batch.num_tokens for batch in schedule.batches] == [sum(tails)]
    assert len(schedule.batches[0].slots) == 4 * 60


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lengths", [[100, 2], [2, 100], [100, 100], [1, 150, 1]], ids=str)
def test_long_and_short_neighbours_fused_into_one_tile(lengths: list[int], method: str) -> None:
    """A long span used in place must be hidden from the rows of the roots beside it."""
    begin = [sum(lengths[:index]) for index in range(len(lengths))]
    rows = list(range(len(lengths)))
    forest = Forest.from_nodes([-1] * len(lengths), lengths, begin, rows)
    case = TreeCase(forest=forest, num_slots=sum(lengths))
    x = make_inputs(case, num_q_heads=2, num_kv_heads=1, head_dim=16)
    op = check(case, x, method)
    schedule = make_schedule(build_plan(forest, method), op.heads)
    assert len(schedule.tiles) == 1 and not schedule.batches


@pytest.mark.parametrize("method", METHODS)
def test_a_line_in_consecutive_slots_is_used_as_one(method: str) -> None:
    """Root, second child and grandchild touch; rows sit there and at two siblings, one empty.

    Pieces join across nodes only while the same rows see them.
    """
    forest = Forest.from_nodes(
        [-1, 0, 0, 2, 0],
        [200, 0, 30, 20, 7],
        [0, 300, 200, 230, 400],
        [0, 0, 1, 2, 2, 3, 3, 4],
        [150, 200, 0, 11, 30, 5, 20, 7],
    )
    case = TreeCase(forest=forest, num_slots=420)
    x = make_inputs(case, num_q_heads=8, num_kv_heads=4, head_dim=128)
    check(case, x, method)
    without_last = Forest.from_nodes(
        forest.parent[:4],
        forest.length[:4],
        [0, 300, 200, 230],
        forest.query_node[:7],
        forest.query_len[:7],
    )
    part = AttentionInputs(q=x.q[:7], k=x.k, v=x.v)
    op = check(TreeCase(forest=without_last, num_slots=420), part, method)
    if method not in ("per_branch", "lean"):
        (tile,) = make_schedule(build_plan(without_last, method), op.heads).tiles
        assert tile.segments == ((0, 250),)
