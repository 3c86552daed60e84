"""Comparing a result with an exact one, with a budget taken from the data."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_within_budget(
    got: Tensor, exact: Tensor, naive: Tensor, *, name: str, factor: float = 2.0
) -> None:
    """Assert that `got` is at most `factor` times as wrong as a plain run in the same precision.

    Args:
        got: the result under test.
        exact: the same in float64.
        naive: the same by plain torch in the precision of `got`.
    Raises:
        AssertionError: finite numbers in other places than in `exact`, or an error beyond
            factor * (naive error + eps of got's dtype * largest exact number).
    """
    got64, naive64 = got.double(), naive.double()
    finite = exact.isfinite()
    assert torch.equal(got64.isfinite(), finite), f"{name}: finite numbers are in other places"
    assert torch.equal(got64[~finite], exact[~finite]), f"{name}: infinities differ"
    if not finite.any():
        return
    error = (got64 - exact)[finite].abs().max().item()
    naive_error = (naive64 - exact)[finite].abs().max().item()
    eps = torch.finfo(got.dtype).eps
    budget = factor * (naive_error + eps * exact[finite].abs().max().item())
    assert error <= budget, f"{name}: error {error:.3e}, expected at most {budget:.3e}"
