"""Products with a layer's weights as the fused decoder asks for them: 16 or 32 bit, or fp8."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ramify.models.kernels import fp8_matmul as fp8
from ramify.models.kernels.gated import gated
from ramify.models.kernels.hopper import product as hopper
from ramify.models.kernels.widen import widen
from ramify.models.quantise import Fp8Weight


class Product(Protocol):
    """A weight [in, out] to multiply rows [n, in] with."""

    def of(self, rows: Tensor) -> Tensor:
        """rows @ weight, a new tensor [n, out]."""
        ...

    def add_to(self, x: Tensor, rows: Tensor) -> None:
        """x [n, out] += rows @ weight, in place."""
        ...

    def gate(self, rows: Tensor, *, eps: float, bias: Tensor | None) -> Tensor:
        """silu(g) * u [n, out / 2] of g, u = RMSNorm(rows) @ weight + bias, g the first half.

        The norm's weight is folded into the product's; `eps` is the norm's.
        """
        ...

    def turn(self, rows: Tensor, heads: Heads, *, eps: float) -> bool:
        """Write the heads of RMSNorm(rows) @ weight, turned; False where `of` has to be used."""
        ...


class Heads(NamedTuple):
    """Where attention's heads go, and how they turn on the way.

    q [rows, Hq, D], written; k_pool, v_pool [num_slots, Hkv, D], written at slots [rows] int64;
    positions [rows] int64; rotary [num_positions, D], see rope.py::rotary_table.
    """

    q: Tensor
    k_pool: Tensor
    v_pool: Tensor
    positions: Tensor
    slots: Tensor
    rotary: Tensor


class DenseProduct:
    """Of few rows on a Hopper GPU by our own kernel, which reads the weight fastest; else cuBLAS.

    A row's result does not depend on how many rows there are, as long as they are few.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        is_whole = weight.shape[1] % 8 == 0 and hopper.suits(weight.t())
        self._is_suitable = is_whole and is_hopper(weight.device)

    def of(self, rows: Tensor) -> Tensor:
        if not self._is_few(rows):
            return rows @ self.weight
        out = rows.new_empty(len(rows), self.weight.shape[1])
        hopper.product(rows, self.weight.t(), out, adds=False)
        return out

    def add_to(self, x: Tensor, rows: Tensor) -> None:
        if self._is_few(rows):
            hopper.product(rows, self.weight.t(), x, adds=True)
        else:
            x.addmm_(rows, self.weight)  # in place: elsewhere torch copies x before it multiplies

    def gate(self, rows: Tensor, *, eps: float, bias: Tensor | None) -> Tensor:
        if bias is not None or not self._is_few(rows):
            return gate_after(self.of(rows), rows, eps=eps, bias=bias)
        out = rows.new_empty(len(rows), self.weight.shape[1] // 2)
        hopper.gated_product(rows, self.weight.t(), out, eps=eps)
        return out

    def turn(self, rows: Tensor, heads: Heads, *, eps: float) -> bool:
        weight, pools = self.weight.t(), (heads.k_pool, heads.v_pool)
        if not self._is_few(rows) or not hopper.turns(rows, weight, *pools):
            return False
        hopper.turned_product(rows, weight, **heads._asdict(), eps=eps)
        return True

    def _is_few(self, rows: Tensor) -> bool:
        return self._is_suitable and 0 < len(rows) <= hopper.MAX_ROWS and hopper.suits(rows)


class Fp8Product:
    """Up to MAX_ROWS rows by a kernel that reads fp8; more by a widened copy, made every time.

    One step at a time: the products of a weight share its counters.
    """

    def __init__(self, weight: Fp8Weight) -> None:
        self.weight = weight
        size = fp8.num_counters(len(weight.scale))
        self._counters = torch.zeros(size, dtype=torch.int32, device=weight.data.device)

    @property
    def num_bytes(self) -> int:
        """Bytes of the weight and its scales."""
        return self.weight.data.nbytes + self.weight.scale.nbytes

    def of(self, rows: Tensor) -> Tensor:
        if len(rows) > fp8.MAX_ROWS:
            return rows @ widen(self.weight, rows.dtype)
        out = rows.new_empty(len(rows), len(self.weight.scale))
        fp8.fp8_matmul(rows.contiguous(), self.weight, self._counters, out=out)
        return out

    def add_to(self, x: Tensor, rows: Tensor) -> None:
        if len(rows) > fp8.MAX_ROWS:
            x.addmm_(rows, widen(self.weight, rows.dtype))
        else:
            fp8.fp8_matmul(rows.contiguous(), self.weight, self._counters, out=x, is_residual=True)

    def gate(self, rows: Tensor, *, eps: float, bias: Tensor | None) -> Tensor:
        return gate_after(self.of(rows), rows, eps=eps, bias=bias)

    def turn(self, rows: Tensor, heads: Heads, *, eps: float) -> bool:
        return False


def gate_after(gate_up: Tensor, rows: Tensor, *, eps: float, bias: Tensor | None) -> Tensor:
    """The gated activation of a product that was made by itself."""
    out = rows.new_empty(len(rows), gate_up.shape[1] // 2)
    gated(gate_up, rows, out=out, eps=eps, bias=bias)
    return out


@cache
def is_hopper(device: torch.device) -> bool:
    """Whether kernels for sm_90a run there and can be compiled."""
    return hopper.is_available(device)
