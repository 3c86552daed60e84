"""assert_within_budget must be able to fail."""

from __future__ import annotations

import pytest
import torch

from ramify.testing.compare import assert_within_budget

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
def test_rejects_what_it_should(got: torch.Tensor, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_within_budget(got.float(), EXACT, (EXACT + 1e-4).float(), name="out")
