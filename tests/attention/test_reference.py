"""The eager reference against torch's own attention, and its edges."""

from __future__ import annotations

import pytest
import torch

from ramify.attention import TreeAttention
from ramify.attention.reference import merge_partials_ref, tree_attention_ref, visibility_ref
from ramify.core.forest import Forest
from ramify.testing.inputs import AttentionInputs, make_inputs
from ramify.testing.trees import RandomForestSpec, TreeCase, few_shot, prefill, random_forest


@pytest.mark.parametrize("chunk", [1, 5, 40])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_a_chain_is_causal_attention(chunk: int, num_kv_heads: int) -> None:
    case = prefill(prompt=40, chunk=chunk)
    x = make_inputs(case, num_kv_heads=num_kv_heads).to(torch.float64)
    out, lse = tree_attention_ref(x.q, x.k, x.v, case.forest)
    keys, values = (pool[1:41].transpose(0, 1)[None] for pool in (x.k, x.v))
    mask = torch.ones(chunk, 40, dtype=torch.bool).tril(40 - chunk)
    expected = torch.nn.functional.scaled_dot_product_attention(
        x.q.transpose(0, 1)[None], keys, values, attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(out, expected[0].transpose(0, 1))
    logits = torch.einsum("qhd,thd->qht", x.q, x.k[1:41].repeat_interleave(4 // num_kv_heads, 1))
    expected_lse = (logits / 8).masked_fill(~mask[:, None], -torch.inf).logsumexp(-1)
    torch.testing.assert_close(lse, expected_lse)


def test_each_branch_is_its_own_chain() -> None:
    case = few_shot(branches=3, prompt=10, generated=4)
    x = make_inputs(case).to(torch.float64)
    out, _ = tree_attention_ref(x.q, x.k, x.v, case.forest)
    for row, begin in enumerate([11, 16, 21]):
        slots = [*range(10), *range(begin, begin + 4)]
        expected = torch.nn.functional.scaled_dot_product_attention(
            x.q[row][None, :, None],
            x.k[slots].transpose(0, 1)[None],
            x.v[slots].transpose(0, 1)[None],
            enable_gqa=True,
        )
        torch.testing.assert_close(out[row], expected[0, :, 0])


def test_visibility_spelled_out() -> None:
    """Nodes: 0 child of 2, 1 another root, 2 a root; a run of node 2 comes from a later slot."""
    forest = Forest.from_nodes(
        [2, -1, -1],
        [2, 1, 3],
        None,
        [0, 2, 1, 0],
        [1, 2, 0, 2],
        runs=[[(4, 2)], [(9, 1)], [(7, 1), (0, 2)]],
    )
    slots, visible = visibility_ref(forest)
    assert slots.tolist() == [4, 5, 9, 7, 0, 1]
    assert visible.int().tolist() == [
        [1, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 1],
    ]
    _, windowed = visibility_ref(forest, window=2)
    assert windowed.int().tolist() == [
        [1, 0, 0, 0, 0, 1],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
    ]


def test_a_row_that_sees_nothing_gives_zero_and_minus_infinity() -> None:
    case = TreeCase(forest=Forest.from_nodes([-1], [2], [0], [0, 0], [0, 2]), num_slots=3)
    x = make_inputs(case)
    out, lse = tree_attention_ref(x.q, x.k, x.v, case.forest)
    assert (out[0] == 0).all() and (lse[0] == -torch.inf).all()
    assert out[1].isfinite().all() and lse[1].isfinite().all()


def test_softcap_bounds_the_logits() -> None:
    case = prefill(prompt=6, chunk=1)
    x = make_inputs(case, num_q_heads=1, num_kv_heads=1).to(torch.float64)
    _, lse = tree_attention_ref(x.q, x.k, x.v, case.forest, scale=2.0, softcap=3.0)
    logits = 3 * torch.tanh(2.0 * (x.k[1:7, 0] @ x.q[0, 0]) / 3)
    torch.testing.assert_close(lse[0, 0], logits.logsumexp(0))


def test_merging_partials_is_attention_over_their_union() -> None:
    torch.manual_seed(0)
    scores, values = torch.randn(3, 9, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    outs, lses = [], []
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        outs.append(scores[:, part].softmax(-1) @ values[part])
        lses.append(scores[:, part].logsumexp(-1))
    empty = torch.full((1, 3, 5), torch.nan, dtype=torch.float64)
    partial_out = torch.cat([torch.stack(outs), empty, empty])
    partial_lse = torch.cat([torch.stack(lses), torch.full((2, 3), -torch.inf)])
    # first query: all pieces and an empty one; second: nothing; third: an empty piece alone
    out, lse = merge_partials_ref(partial_out, partial_lse, torch.tensor([0, 4, 4, 5]))
    torch.testing.assert_close(out[0], scores.softmax(-1) @ values)
    torch.testing.assert_close(lse[0], scores.logsumexp(-1))
    assert (out[1:] == 0).all() and (lse[1:] == -torch.inf).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_and_keeps_the_results() -> None:
    """float64 has no kernel on a GPU, so this is what runs there."""
    case = random_forest(4, RandomForestSpec(num_rows=90))
    x = make_inputs(case, dtype=torch.float64)
    on_gpu = AttentionInputs(q=x.q.cuda(), k=x.k.cuda(), v=x.v.cuda())
    expected = tree_attention_ref(x.q, x.k, x.v, case.forest, window=20, softcap=3.0)
    op = TreeAttention(4, 2, 64, dtype=torch.float64, device="cuda", softcap=3.0)
    assert op.backend == "reference"
    op.plan(case.forest)
    for got, exact in zip(op.run(on_gpu.q, on_gpu.k, on_gpu.v, window=20), expected, strict=True):
        assert got.is_cuda and got.dtype == torch.float64
        torch.testing.assert_close(got.cpu(), exact)
