"""The products of a GPU step: rows times a weight, by the kernel that reads the weight fastest.

With few rows a product takes as long as its weight takes to read. On a Hopper GPU our own kernel
then begins to read before the rows are there; everything else is cuBLAS. A row's result does not
depend on how many rows there are, as long as our kernel computes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ramify.core.errors import BackendUnavailable
from ramify.models.kernels.gated import gated
from ramify.models.kernels.hopper.product import (
    MAX_ROWS,
    check_device,
    gated_product,
    product,
    suits,
)


class Products:
    """x @ weight and x @ weight added to something, for weights on one device."""

    def __init__(self, device: torch.device) -> None:
        self._own = True
        self.reason = "few rows on a Hopper GPU"
        try:
            check_device(device)
        except BackendUnavailable as unavailable:
            self._own, self.reason = False, str(unavailable)

    def multiply(self, rows: Tensor, weight: Tensor) -> Tensor:
        """rows [n, in] @ weight [in, out]."""
        if not self._is_ours(rows, weight):
            return rows @ weight
        out = rows.new_empty(len(rows), weight.shape[1])
        product(rows, weight.t(), out, adds=False)
        return out

    def add(self, out: Tensor, rows: Tensor, weight: Tensor) -> None:
        """out [n, out] += rows [n, in] @ weight [in, out]."""
        if self._is_ours(rows, weight):
            product(rows, weight.t(), out, adds=True)
        else:
            out.addmm_(rows, weight)

    def gate(self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """silu(g) * u of g, u = RMSNorm(x) @ weight + bias; [n, inner].

        Args:
            x: [n, hidden].
            weight: [hidden, 2 * inner], with the norm's weight folded in; g comes first.
            bias: [2 * inner] or None.
            eps: of the norm.
        """
        out = x.new_empty(len(x), weight.shape[1] // 2)
        if bias is None and self._is_ours(x, weight):
            gated_product(x, weight.t(), out, eps=eps)
        else:
            gated(self.multiply(x, weight), x, out=out, eps=eps, bias=bias)
        return out

    def _is_ours(self, rows: Tensor, weight: Tensor) -> bool:
        return self._own and 0 < len(rows) <= MAX_ROWS and suits(rows, weight.t())
