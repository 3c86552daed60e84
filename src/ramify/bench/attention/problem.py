"""What every provider gets: one forest, its q, k and v, and the index lists that a server keeps.

Page tables, gathered rows and the like are prepared here or by a provider's `prepare`, outside of
any timing: an engine has them anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ramify.attention.plan import HeadShape
from ramify.bench.attention.shapes import Case
from ramify.core.forest import Forest, IntArray

JUNK = 1e4  # V of unused slots; their K is 0, so a stray read weighs enough to be seen


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """q [Q, Hq, D] in the forest's depth-first row order; k, v [num_slots, Hkv, D]."""

    case: Case
    forest: Forest
    q: Tensor
    k: Tensor
    v: Tensor

    @property
    def device(self) -> torch.device:
        return self.q.device

    @property
    def dtype(self) -> torch.dtype:
        return self.q.dtype

    @property
    def heads(self) -> HeadShape:
        """The heads with the size of an element."""
        heads = self.case.heads
        return HeadShape(
            num_q_heads=heads.num_q_heads,
            num_kv_heads=heads.num_kv_heads,
            head_dim=heads.head_dim,
            itemsize=self.dtype.itemsize,
        )

    def grown(self, tokens: int) -> Problem:
        """The same tensors with a new forest whose leaves are `tokens` longer."""
        return replace(self, forest=self.case.tree.forest(tokens))

    @cached_property
    def node_slots(self) -> list[IntArray]:
        """Per node the slots of its tokens, in order."""
        forest, slots = self.forest, []
        for node in range(forest.num_nodes):
            runs = range(int(forest.run_indptr[node]), int(forest.run_indptr[node + 1]))
            parts = [_span(int(forest.run_begin[r]), int(forest.run_len[r])) for r in runs]
            slots.append(np.concatenate(parts) if len(parts) != 1 else parts[0])
        return slots

    @cached_property
    def row_slots(self) -> list[IntArray]:
        """Per row the slots of the tokens it sees, from the root down."""
        forest = self.forest
        above: dict[int, IntArray] = {-1: np.empty(0, dtype=np.int64)}
        for node in forest.node_order.tolist():
            # a leaf's path is only needed by its own rows
            above[node] = np.concatenate([above[int(forest.parent[node])], self.node_slots[node]])
        hidden = (forest.length[forest.query_node] - forest.query_len).tolist()
        return [
            above[node][: len(above[node]) - short]
            for node, short in zip(forest.query_node.tolist(), hidden, strict=True)
        ]

    @cached_property
    def sees_whole_nodes(self) -> bool:
        """Whether every row sees all tokens of its own node."""
        forest = self.forest
        return bool((forest.query_len == forest.length[forest.query_node]).all())


def make_problem(case: Case, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Problem:
    """Random q, k and v for a case, junk in every slot that the forest does not use."""
    heads, forest = case.heads, case.tree.forest()
    generator = torch.Generator(device=device).manual_seed(seed)
    num_slots = case.tree.num_slots()

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    q = draw(forest.num_rows, heads.num_q_heads, heads.head_dim)
    k = draw(num_slots, heads.num_kv_heads, heads.head_dim)
    v = draw(num_slots, heads.num_kv_heads, heads.head_dim)
    problem = Problem(case=case, forest=forest, q=q, k=k, v=v)
    unused = np.ones(num_slots, dtype=np.bool_)
    for slots in problem.node_slots:
        unused[slots] = False
    junk = torch.from_numpy(np.flatnonzero(unused)).to(device)
    k[junk], v[junk] = 0.0, JUNK
    return problem


def _span(begin: int, length: int) -> IntArray:
    return np.arange(begin, begin + length, dtype=np.int64)
