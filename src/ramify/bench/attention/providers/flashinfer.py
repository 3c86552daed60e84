"""FlashInfer's ways to decode a tree, from plain decode to one prefill over all nodes.

Pages hold one token, indptrs are given on the host (no synchronisation in plan), dtypes are always
said, and the cascade is measured both as shipped and on its fa2 kernels, which suit few rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ramify.bench.attention.problem import Problem
from ramify.bench.attention.providers.base import (
    Absent,
    Facts,
    Prepared,
    read_once,
    read_per_row,
)
from ramify.bench.attention.providers.pages import (
    Pages,
    pages_by_level,
    pages_by_node,
    pages_by_row,
)

WORKSPACE_BYTES = 768 << 20
TENSOR_CORE_GROUP = 4  # its decode kernel on CUDA cores is the faster one below


class BatchDecode:
    """Plain paged decode, each row with its own page list."""

    def __init__(self) -> None:
        self._wrapper: Any = None

    def prepare(self, problem: Problem) -> Prepared:
        lib, pages = _library(problem), pages_by_row(problem)
        if self._wrapper is None:
            self._wrapper = lib.BatchDecodeWithPagedKVCacheWrapper(
                _workspace(problem.device),
                "NHD",
                use_tensor_cores=problem.heads.group >= TENSOR_CORE_GROUP,
            )
        wrapper, cache_, out = self._wrapper, _paged(problem), torch.empty_like(problem.q)

        def plan() -> None:
            wrapper.plan(
                pages.kv_indptr,
                pages.kv_indices,
                pages.last_page_len,
                *_head_args(problem),
                1,
                q_data_type=problem.dtype,
                kv_data_type=problem.dtype,
            )

        return Prepared(
            plan=plan,
            run=lambda: wrapper.run(problem.q, cache_, out=out),
            facts=lambda: read_per_row(problem),
        )


class Holistic:
    """BatchAttention: one persistent kernel, each row with its own page list."""

    def __init__(self) -> None:
        self._wrapper: Any = None

    def prepare(self, problem: Problem) -> Prepared:
        lib, pages = _library(problem), pages_by_row(problem)
        if self._wrapper is None:
            self._wrapper = lib.BatchAttention("NHD", str(problem.device))
        wrapper, cache_, out = self._wrapper, _paged(problem), torch.empty_like(problem.q)
        lse = torch.empty(problem.q.shape[:2], dtype=torch.float32, device=problem.device)
        heads = problem.heads

        def plan() -> None:
            wrapper.plan(
                pages.qo_indptr,
                pages.kv_indptr,
                pages.kv_indices,
                pages.kv_len,
                *_head_args(problem),
                heads.head_dim,
                1,
                causal=False,
                sm_scale=heads.head_dim**-0.5,
                q_data_type=problem.dtype,
                kv_data_type=problem.dtype,
            )

        return Prepared(
            plan=plan,
            run=lambda: wrapper.run(problem.q, cache_, out=out, lse=lse)[0],
            facts=lambda: read_per_row(problem),
        )


class Cascade:
    """MultiLevelCascade: a prefill launch per depth of the tree, merged two by two."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._wrapper: Any = None
        self._num_levels = 0

    def prepare(self, problem: Problem) -> Prepared:
        lib, levels = _library(problem), pages_by_level(problem)
        if not problem.sees_whole_nodes:
            raise Absent("a row that sees part of a node has no place in a cascade")
        if self._num_levels != len(levels):
            self._wrapper = lib.MultiLevelCascadeAttentionWrapper(
                len(levels), _workspace(problem.device), "NHD"
            )
            self._num_levels = len(levels)
            if self.backend != "auto":
                for inner in self._wrapper._batch_prefill_wrappers:
                    inner._backend = self.backend
        wrapper, cache_ = self._wrapper, _paged(problem)

        def plan() -> None:
            wrapper.plan(
                [level.qo_indptr for level in levels],
                [level.kv_indptr for level in levels],
                [level.kv_indices for level in levels],
                [level.last_page_len for level in levels],
                *_head_args(problem),
                1,
                q_data_type=problem.dtype,
                kv_data_type=problem.dtype,
            )

        return Prepared(
            plan=plan,
            run=lambda: wrapper.run(problem.q, cache_),
            facts=lambda: read_once(problem),
        )


class OnePass:
    """One paged prefill over all (node, rows) pairs with gathered q, then one ragged merge."""

    def __init__(self) -> None:
        self._wrapper: Any = None

    def prepare(self, problem: Problem) -> Prepared:
        lib = _library(problem)
        if not problem.sees_whole_nodes:
            raise Absent("a row that sees part of a node has no place in this plan")
        from ramify.bench.attention.providers.ragged_merge import merge_lists, ragged_merge

        if self._wrapper is None:
            self._wrapper = lib.BatchPrefillWithPagedKVCacheWrapper(
                _workspace(problem.device), "NHD", backend="fa2"
            )
        pages, row_list = pages_by_node(problem)
        rows = torch.from_numpy(row_list).to(problem.device)
        indptr, index = merge_lists(rows, len(problem.q))
        wrapper, cache_, out = self._wrapper, _paged(problem), torch.empty_like(problem.q)
        part = torch.empty(
            (len(rows), *problem.q.shape[1:]), dtype=problem.dtype, device=out.device
        )
        lse2 = torch.empty(part.shape[:2], dtype=torch.float32, device=out.device)
        partial_bytes = (
            2
            * len(rows)
            * problem.heads.num_q_heads
            * (problem.heads.head_dim * problem.heads.itemsize + 4)
        )

        def plan() -> None:
            _plan_prefill(wrapper, problem, pages)

        def run() -> Tensor:
            gathered = problem.q.index_select(0, rows)
            wrapper.run(gathered, cache_, out=part, lse=lse2, return_lse=True)
            return ragged_merge(part, lse2, indptr, index, out)

        facts = Facts(kv_bytes_read=read_once(problem).kv_bytes_read, partial_bytes=partial_bytes)
        return Prepared(plan=plan, run=run, facts=lambda: facts)


def _plan_prefill(wrapper: Any, problem: Problem, pages: Pages) -> None:
    wrapper.plan(
        pages.qo_indptr,
        pages.kv_indptr,
        pages.kv_indices,
        pages.last_page_len,
        *_head_args(problem),
        1,
        causal=False,
        q_data_type=problem.dtype,
        kv_data_type=problem.dtype,
    )


def _head_args(problem: Problem) -> tuple[int, int, int]:
    heads = problem.heads
    return heads.num_q_heads, heads.num_kv_heads, heads.head_dim


def _paged(problem: Problem) -> tuple[Tensor, Tensor]:
    """The pools as pages of one token, [pages, 1, Hkv, D]."""
    return problem.k[:, None], problem.v[:, None]


def _library(problem: Problem) -> Any:
    """The library, where it can run. Raises Absent, saying why it cannot."""
    if problem.device.type != "cuda":
        raise Absent(f"needs a GPU, the device is {problem.device}")
    if problem.dtype not in (torch.bfloat16, torch.float16):
        raise Absent(f"needs bfloat16 or float16, the dtype is {problem.dtype}")
    return _import()


@cache
def _import() -> Any:
    try:
        import flashinfer
    except Exception as error:  # a broken install fails in many ways, and is no reason to stop
        raise Absent(f"flashinfer cannot be imported: {error}") from error
    return flashinfer


@cache
def _workspace(device: torch.device) -> Tensor:
    """Shared by all wrappers, which run one after another."""
    return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
