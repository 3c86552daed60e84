"""The gate before any timing: every provider against float64 over each row's own path.

The oracle gathers each row's tokens, so it knows nothing of trees or plans. The budget comes from
the data: what plain torch in the precision of the inputs gets wrong, times `FACTOR`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ramify.bench.attention.problem import Problem

# twice what the project's own tests allow: peers that merge partial results in 16 bits pass too
FACTOR = 4.0
CHUNK_BYTES = 1 << 29


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """exact and naive [Q, Hq, D]: float64, and plain torch in the inputs' precision."""

    exact: Tensor
    naive: Tensor

    @property
    def scale(self) -> float:
        """The error that plain torch makes, plus one rounding of the largest number."""
        eps = torch.finfo(self.naive.dtype).eps
        error = (self.naive.double() - self.exact).abs().max().item()
        return error + eps * self.exact.abs().max().item()


def make_oracle(problem: Problem) -> Oracle:
    """Attention of every row over its gathered path."""
    exact = torch.zeros_like(problem.q, dtype=torch.float64)
    naive = torch.zeros_like(problem.q)
    heads = problem.heads
    longest = max((len(slots) for slots in problem.row_slots), default=0)
    head_bytes = max(longest * heads.head_dim * 8, 1)
    # a long row is taken a few KV heads at a time: the float64 copy of all would be gigabytes
    kv_step = min(heads.num_kv_heads, max(1, CHUNK_BYTES // head_bytes))
    row_step = max(1, CHUNK_BYTES // (head_bytes * kv_step))
    for begin in range(0, len(problem.q), row_step):
        rows = slice(begin, begin + row_step)
        slots, is_pad = _padded(problem.row_slots[rows], problem.device)
        for first in range(0, heads.num_kv_heads, kv_step):
            some = (rows, slice(first, first + kv_step))
            for out, dtype in ((exact, torch.float64), (naive, problem.dtype)):
                grouped = out.view(len(out), heads.num_kv_heads, heads.group, heads.head_dim)
                grouped[some] = _attend(problem, *some, slots, is_pad, dtype)
    return Oracle(exact=exact, naive=naive)


def error_ratio(out: Tensor, oracle: Oracle) -> float:
    """Largest error over the oracle's scale; infinite when out is not finite everywhere."""
    if out.shape != oracle.exact.shape or not bool(out.isfinite().all()):
        return float("inf")
    return (out.double() - oracle.exact).abs().max().item() / oracle.scale


def poison_free_memory(like: Tensor) -> None:
    """Fill memory that the allocator will hand out next, so it cannot hold an old answer."""
    torch.full((4, *like.shape), torch.nan, device=like.device, dtype=torch.float32)
    for _ in range(4):
        torch.full_like(like, torch.nan)


def _padded(row_slots: list[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Slots [n, longest] and the mask of what is padding."""
    length = np.array([len(slots) for slots in row_slots])
    slots = np.zeros((len(row_slots), int(length.max(initial=0))), dtype=np.int64)
    for index, own in enumerate(row_slots):
        slots[index, : len(own)] = own
    is_pad = np.arange(slots.shape[1]) >= length[:, None]
    return torch.from_numpy(slots).to(device), torch.from_numpy(is_pad).to(device)


def _attend(
    problem: Problem, rows: slice, kv: slice, slots: Tensor, is_pad: Tensor, dtype: torch.dtype
) -> Tensor:
    """Some rows and KV heads [n, h, G, D]."""
    heads = problem.heads
    q = problem.q.view(-1, heads.num_kv_heads, heads.group, heads.head_dim)[rows, kv].to(dtype)
    keys = problem.k[:, kv][slots].to(dtype).permute(0, 2, 3, 1)  # [n, h, D, L]
    scores = q @ keys * heads.head_dim**-0.5
    scores = scores.masked_fill(is_pad[:, None, None], -torch.inf)
    values = problem.v[:, kv][slots].to(dtype).transpose(1, 2)  # [n, h, L, D]
    return torch.softmax(scores, dim=-1) @ values
