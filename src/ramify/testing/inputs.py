"""q, k and v for a tree case: seeded, with NaN in every slot that no row sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.testing.trees import TreeCase


@dataclass(frozen=True, kw_only=True)
class AttentionInputs:
    """q [Q, Hq, D]; k, v [num_slots, Hkv, D]."""

    q: Tensor
    k: Tensor
    v: Tensor

    def to(self, dtype: torch.dtype) -> AttentionInputs:
        """The same numbers in another precision."""
        return AttentionInputs(q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))


def make_inputs(
    case: TreeCase,
    *,
    num_q_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 64,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    poison: bool = True,
    strided: bool = False,
    device: torch.device | str = "cpu",
) -> AttentionInputs:
    """Random inputs for a case, other numbers on another kind of device.

    Args:
        poison: NaN in K and V of every slot that no row sees.
        strided: k and v interleave in one pool [num_slots, 2, Hkv, D], q is a slice of wider rows.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    q = draw(case.forest.num_rows, num_q_heads + 1, head_dim)
    pool = draw(case.num_slots, 2, num_kv_heads, head_dim)
    if poison:
        pool[~seen_slots(case).to(device)] = torch.nan
    q, k, v = q[:, :num_q_heads], pool[:, 0], pool[:, 1]
    if not strided:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    return AttentionInputs(q=q, k=k, v=v)


def seen_slots(case: TreeCase) -> Tensor:
    """[num_slots] bool: slots whose token some row sees, by walking every row's path."""
    forest = case.forest
    need = [0] * forest.num_nodes
    for node, seen in zip(forest.query_node.tolist(), forest.query_len.tolist(), strict=True):
        need[node] = max(need[node], seen)
        above = int(forest.parent[node])
        while above >= 0:
            need[above] = int(forest.length[above])
            above = int(forest.parent[above])
    live = torch.zeros(case.num_slots, dtype=torch.bool)
    for node, tokens in enumerate(need):
        for run in range(int(forest.run_indptr[node]), int(forest.run_indptr[node + 1])):
            begin, length = int(forest.run_begin[run]), int(forest.run_len[run])
            live[begin : begin + max(0, min(length, tokens))] = True
            tokens -= length
    return live
