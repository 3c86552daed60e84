"""Page lists of a forest for paged attention with one-token pages: by row, by level, by node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ramify.bench.attention.problem import Problem
from ramify.core.forest import IntArray


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Requests of consecutive query rows and their pages, as a paged kernel's plan takes them."""

    qo_indptr: Tensor  # [B + 1] int32, on the host
    kv_indptr: Tensor  # [B + 1] int32, on the host
    kv_indices: Tensor  # [pages] int32, on the device
    kv_len: Tensor  # [B] int32, on the host

    @property
    def last_page_len(self) -> Tensor:
        """[B] int32: a page holds one token."""
        return torch.ones_like(self.kv_len)


def pages_by_row(problem: Problem) -> Pages:
    """A request per row, with the row's whole path."""
    return _pages(problem, np.ones(len(problem.q), dtype=np.int64), problem.row_slots)


def pages_by_level(problem: Problem) -> list[Pages]:
    """Per depth, requests that tile all rows: a node's tokens for the rows at or below it."""
    forest = problem.forest
    depth = np.zeros(forest.num_nodes, dtype=np.int64)
    for node in forest.node_order.tolist():
        above = int(forest.parent[node])
        depth[node] = 0 if above < 0 else depth[above] + 1
    return [
        _level(problem, np.flatnonzero(depth == level))
        for level in range(int(depth.max(initial=0)) + 1)
    ]


def pages_by_node(problem: Problem) -> tuple[Pages, IntArray]:
    """A request per node with tokens, and the row of each of their query rows."""
    forest = problem.forest
    count = forest.row_hi - forest.row_lo
    nodes = [n for n in forest.node_order.tolist() if count[n] and forest.length[n]]
    rows = [np.arange(forest.row_lo[n], forest.row_hi[n]) for n in nodes]
    pages = _pages(problem, count[nodes], [problem.node_slots[n] for n in nodes])
    return pages, np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


def _level(problem: Problem, nodes: IntArray) -> Pages:
    forest = problem.forest
    empty = np.empty(0, dtype=np.int64)
    counts: list[int] = []
    slots: list[IntArray] = []
    cursor = 0
    live = nodes[forest.row_hi[nodes] > forest.row_lo[nodes]]
    for node in live[np.argsort(forest.row_lo[live])].tolist():
        if forest.row_lo[node] > cursor:  # rows that have no node at this depth
            counts.append(int(forest.row_lo[node]) - cursor)
            slots.append(empty)
        counts.append(int(forest.row_hi[node] - forest.row_lo[node]))
        slots.append(problem.node_slots[node])
        cursor = int(forest.row_hi[node])
    if cursor < forest.num_rows:
        counts.append(forest.num_rows - cursor)
        slots.append(empty)
    return _pages(problem, np.array(counts, dtype=np.int64), slots)


def _pages(problem: Problem, num_rows: IntArray, slots: list[IntArray]) -> Pages:
    length = np.array([len(own) for own in slots], dtype=np.int64)
    indices = np.concatenate(slots) if slots else np.empty(0, dtype=np.int64)
    return Pages(
        qo_indptr=_indptr(num_rows),
        kv_indptr=_indptr(length),
        kv_indices=torch.from_numpy(indices.astype(np.int32)).to(problem.device),
        kv_len=torch.from_numpy(length.astype(np.int32)),
    )


def _indptr(counts: IntArray) -> Tensor:
    return torch.from_numpy(np.append(0, np.cumsum(counts)).astype(np.int32))
