"""assert_within_budget must be able to fail, and may not depend on the machine's luck."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify.attention.reference import tree_attention_ref
from ramify.testing.compare import assert_within_budget
from ramify.testing.inputs import AttentionInputs, make_inputs
from ramify.testing.trees import NAMED, TreeCase, named

EXACT = torch.tensor([1.0, -2.0, -torch.inf], dtype=torch.float64)


def test_accepts_errors_within_the_budget() -> None:
    naive = (EXACT + 1e-4).float()
    assert_within_budget((EXACT + 1.9e-4).float(), EXACT, naive, name="out")
    assert_within_budget(torch.empty(0), torch.empty(0).double(), torch.empty(0), name="none")


@pytest.mark.parametrize(
    "got, message",
    [
        (EXACT + 2.5e-4, "out: error 2.5"),
        (EXACT.nan_to_num(neginf=0.0), "finite numbers are in other places"),
        (EXACT * torch.tensor([1.0, torch.nan, 1.0]), "finite numbers are in other places"),
        (EXACT.nan_to_num(neginf=torch.inf, nan=0.0), "infinities differ"),
    ],
)
def test_rejects_what_it_should(got: Tensor, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_within_budget(got.float(), EXACT, (EXACT + 1e-4).float(), name="out", terms=3)


def test_a_magnitude_counts_where_results_cancel() -> None:
    zero, off = torch.zeros(3).double(), torch.full((3,), 2e-7)
    assert_within_budget(off, zero, zero.float(), name="lse", magnitude=1.0)
    with pytest.raises(AssertionError, match="lse: error 2"):
        assert_within_budget(off, zero, zero.float(), name="lse")


# ── a sum in any order passes beside the luckiest plain run ─────────────────────────────────────


def chain(terms: Tensor) -> Tensor:
    """Sums over the last axis, one number after the other: as wrong as a BLAS may get."""
    total = torch.zeros(terms.shape[:-1], dtype=terms.dtype)
    for index in range(terms.shape[-1]):
        total += terms[..., index]
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("num_terms", [2, 30, 1000, 8000])
def test_a_chain_of_additions_passes_beside_an_exact_run(
    num_terms: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(num_terms)
    products = torch.randn(256, num_terms, generator=generator, dtype=dtype)
    products *= torch.rand(256, num_terms, generator=generator, dtype=dtype) / num_terms
    # fsum is exact, a float64 tensor sum would not judge a float64 chain
    exact = torch.tensor([math.fsum(row) for row in products.tolist()], dtype=torch.float64)
    for order in (products, products.flip(-1)):
        assert_within_budget(chain(order), exact, exact.to(dtype), name="out", terms=num_terms)
    if num_terms >= 1000:  # what `terms` is there for
        with pytest.raises(AssertionError, match="out: error"):
            assert_within_budget(chain(products), exact, exact.to(dtype), name="out")


# ── attention with a bug is many budgets away ───────────────────────────────────────────────────


def attend(
    case: TreeCase, x: AttentionInputs, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Tensor, Tensor]:
    y = x.to(dtype)
    return tree_attention_ref(y.q, y.k, y.v, case.forest, **options)


def last_token_hidden(case: TreeCase, x: AttentionInputs) -> tuple[Tensor, Tensor]:
    seen = np.maximum(case.forest.query_len - 1, 0)
    forest = dataclasses.replace(case.forest, query_len=seen)
    return attend(dataclasses.replace(case, forest=forest), x)


def first_token_hidden(case: TreeCase, x: AttentionInputs) -> tuple[Tensor, Tensor]:
    return attend(case, x, window=int(case.forest.path_len.max()) - 1)


def scale_off_by_a_thousandth(case: TreeCase, x: AttentionInputs) -> tuple[Tensor, Tensor]:
    return attend(case, x, scale=1.001 * x.q.shape[-1] ** -0.5)


def keys_in_half_precision(case: TreeCase, x: AttentionInputs) -> tuple[Tensor, Tensor]:
    return attend(case, dataclasses.replace(x, k=x.k.half().float()))


def rows_of_another_node(case: TreeCase, x: AttentionInputs) -> tuple[Tensor, Tensor]:
    return tuple(result.roll(1, dims=0) for result in attend(case, x))


BUGS = [
    last_token_hidden,
    first_token_hidden,
    scale_off_by_a_thousandth,
    keys_in_half_precision,
    rows_of_another_node,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
@pytest.mark.parametrize("name", NAMED)
def test_attention_with_a_bug_is_many_budgets_away(name: str, bug: Callable[..., Any]) -> None:
    case = named(name)
    x = make_inputs(case, head_dim=32, poison=False)
    exact, naive, wrong = attend(case, x, torch.float64), attend(case, x), bug(case, x)
    out = {"name": "out", "terms": 32 + int(case.forest.path_len.max())}
    lse = {"name": "lse", "terms": 32, "magnitude": 1.0}
    for index, options in enumerate((out, lse)):
        triple = exact[index], naive[index]
        assert_within_budget(naive[index], *triple, **options)
        if options is lse and bug is keys_in_half_precision:
            continue  # rounded keys average out in the sum over tokens
        with pytest.raises(AssertionError, match=f"{options['name']}: error"):
            assert_within_budget(wrong[index], *triple, **options, factor=20.0)
