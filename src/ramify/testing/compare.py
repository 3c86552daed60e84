"""Comparing a result with an exact one, with a budget taken from the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def assert_within_budget(
    got: Tensor,
    exact: Tensor,
    naive: Tensor,
    *,
    name: str,
    factor: float = 2.0,
    terms: int = 1,
    magnitude: float = 0.0,
) -> None:
    """Assert that `got` is at most `factor` times as wrong as a plain run in the same precision.

    One plain run may be lucky: the order in which it adds up n numbers is chosen by the BLAS of the
    machine from the shapes, and a chain of n additions is wrong by about sqrt(n) times as much as
    one. So the budget is never below what such a chain is expected to lose (`terms`).

    Args:
        got: the result under test.
        exact: the same in float64.
        naive: the same by plain torch in the precision of `got`.
        terms: how many numbers the longest sum behind an element adds up, in float32 (in float64
            where `got` is float64). By default the result is one rounding away from exact.
        magnitude: size of those sums where the results are smaller, as by cancellation.
    Raises:
        AssertionError: finite numbers in other places than in `exact`, or an error beyond
            factor * (naive error + rounding * largest exact number or magnitude), where rounding
            is eps of got's dtype, or eps of the sums * sqrt(terms) where that is more.
    """
    got64, naive64 = got.double(), naive.double()
    finite = exact.isfinite()
    assert torch.equal(got64.isfinite(), finite), f"{name}: finite numbers are in other places"
    assert torch.equal(got64[~finite], exact[~finite]), f"{name}: infinities differ"
    if not finite.any():
        return
    error = (got64 - exact)[finite].abs().max().item()
    naive_error = (naive64 - exact)[finite].abs().max().item()
    size = max(exact[finite].abs().max().item(), magnitude)
    budget = factor * (naive_error + _rounding(got.dtype, terms) * size)
    assert error <= budget, f"{name}: error {error:.3e}, expected at most {budget:.3e}"


def _rounding(dtype: torch.dtype, terms: int) -> float:
    """Relative error of a sum of `terms` numbers that is stored as `dtype`."""
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    return max(torch.finfo(dtype).eps, torch.finfo(sums).eps * math.sqrt(terms))
