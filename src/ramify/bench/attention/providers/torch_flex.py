"""torch's FlexAttention with a tree mask: rows against the whole pool, hidden blocks left out.

The mask asks two integers per slot, the interval of rows that see it; building the block mask is
the plan of a step.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from ramify.bench.attention.problem import Problem
from ramify.bench.attention.providers.base import Absent, Prepared, read_once

MAX_MASK_CELLS = 1 << 30  # the block mask is made from one bool per row and slot


class FlexAttention:
    """Compiled on a GPU, eager on a CPU."""

    def __init__(self) -> None:
        self._attend: Any = None

    def prepare(self, problem: Problem) -> Prepared:
        """Raises Absent for rows that see part of a node, and for too large a mask."""
        if not problem.sees_whole_nodes:
            raise Absent("the mask knows whole nodes only")
        num_rows, num_slots = len(problem.q), len(problem.k)
        if num_rows * num_slots > MAX_MASK_CELLS:
            raise Absent(f"the mask has {num_rows * num_slots} cells")
        lo, hi = _intervals(problem)
        state: dict[str, Any] = {}
        if self._attend is None:
            self._attend = _compiled() if problem.device.type == "cuda" else flex_attention
        attend = self._attend

        def visible(batch: Tensor, head: Tensor, row: Tensor, slot: Tensor) -> Tensor:
            return (row >= lo[slot]) & (row < hi[slot])

        def plan() -> None:
            state["mask"] = create_block_mask(
                visible, None, None, num_rows, num_slots, device=problem.device
            )

        def run() -> Tensor:
            with warnings.catch_warnings():
                # eager flex_attention warns that it is not compiled
                warnings.simplefilter("ignore")
                out = attend(
                    problem.q.transpose(0, 1)[None],
                    problem.k.transpose(0, 1)[None],
                    problem.v.transpose(0, 1)[None],
                    block_mask=state["mask"],
                    enable_gqa=problem.heads.group > 1,
                )
            return out[0].transpose(0, 1)

        return Prepared(plan=plan, run=run, facts=lambda: read_once(problem))


def _compiled() -> Any:
    """Static shapes; never a silent fall back to eager, which many recompilations would bring."""
    torch.compiler.reset()
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def _intervals(problem: Problem) -> tuple[Tensor, Tensor]:
    """Per slot the rows [lo, hi) that see it; none for an unused slot."""
    lo = np.zeros(len(problem.k), dtype=np.int32)
    hi = np.zeros(len(problem.k), dtype=np.int32)
    for node, slots in enumerate(problem.node_slots):
        lo[slots] = problem.forest.row_lo[node]
        hi[slots] = problem.forest.row_hi[node]
    return torch.from_numpy(lo).to(problem.device), torch.from_numpy(hi).to(problem.device)
