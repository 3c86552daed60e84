"""Providers: names, reasons for being absent, and page lists that mean the same as the forest."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ramify.attention import METHODS
from ramify.attention.reference import merge_partials_ref
from ramify.bench.attention.check import FACTOR, error_ratio, make_oracle
from ramify.bench.attention.problem import make_problem
from ramify.bench.attention.providers import (
    BY_BACKEND,
    OURS,
    PEERS,
    PROVIDERS,
    UNCUT,
    Absent,
    flashinfer,
    names_of,
    open_provider,
    torch_sdpa,
)
from ramify.bench.attention.providers.pages import (
    pages_by_level,
    pages_by_node,
    pages_by_row,
)
from ramify.core.errors import InputError

CPU = torch.device("cpu")


def _run_pages(problem, pages, q):
    """Every request of a page list by plain torch: out and lse of its query rows."""
    heads = problem.heads
    out = torch.zeros(q.shape, dtype=torch.float64)
    lse = torch.full(q.shape[:2], -torch.inf, dtype=torch.float64)
    for index in range(len(pages.kv_len)):
        rows = slice(int(pages.qo_indptr[index]), int(pages.qo_indptr[index + 1]))
        begin, end = int(pages.kv_indptr[index]), int(pages.kv_indptr[index + 1])
        assert end - begin == int(pages.kv_len[index])
        if begin == end:
            continue
        slots = pages.kv_indices[begin:end].long()
        keys = problem.k[slots].double().repeat_interleave(heads.group, dim=1)
        values = problem.v[slots].double().repeat_interleave(heads.group, dim=1)
        scores = torch.einsum("qhd,thd->qht", q[rows].double(), keys) * heads.head_dim**-0.5
        lse[rows] = scores.logsumexp(dim=-1)
        out[rows] = torch.einsum("qht,thd->qhd", scores.softmax(dim=-1), values)
    return out, lse


@pytest.fixture(params=["case", "draft_case"])
def any_problem(request):
    return make_problem(request.getfixturevalue(request.param), device=CPU, dtype=torch.float32)


def test_pages_by_row_are_whole_paths(any_problem):
    out, _ = _run_pages(any_problem, pages_by_row(any_problem), any_problem.q)
    torch.testing.assert_close(out, make_oracle(any_problem).exact)


def test_levels_merge_to_the_whole(any_problem):
    parts = [_run_pages(any_problem, p, any_problem.q) for p in pages_by_level(any_problem)]
    num_rows = len(any_problem.q)
    out = torch.stack([part[0] for part in parts], dim=1).flatten(0, 1)
    lse = torch.stack([part[1] for part in parts], dim=1).flatten(0, 1)
    indptr = torch.arange(num_rows + 1) * len(parts)
    merged, _ = merge_partials_ref(out, lse, indptr)
    torch.testing.assert_close(merged, make_oracle(any_problem).exact)


def test_nodes_merge_to_the_whole(any_problem):
    pages, rows = pages_by_node(any_problem)
    out, lse = _run_pages(any_problem, pages, any_problem.q[torch.from_numpy(rows)])
    order = np.argsort(rows, kind="stable")
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=len(any_problem.q))))
    merged, _ = merge_partials_ref(out[order], lse[order], torch.from_numpy(indptr))
    torch.testing.assert_close(merged, make_oracle(any_problem).exact)


@pytest.mark.parametrize("name", [*OURS, "torch:flex", "torch:sdpa", "ramify:per_branch@reference"])
def test_providers_on_a_cpu_are_right(name, any_problem):
    prepared = open_provider(name).prepare(any_problem)
    prepared.plan()
    assert error_ratio(prepared.run(), make_oracle(any_problem)) <= FACTOR
    forest, token_bytes = any_problem.forest, any_problem.heads.token_bytes
    read = prepared.facts().kv_bytes_read
    assert forest.unique_tokens * token_bytes <= read <= forest.path_tokens * token_bytes


@pytest.mark.parametrize("name", [name for name in PEERS if name.startswith("flashinfer")])
def test_a_library_for_gpus_is_absent_on_a_cpu(name, problem):
    with pytest.raises(Absent, match="needs a GPU"):
        open_provider(name).prepare(problem)


def test_a_library_that_is_not_installed_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    flashinfer._import.cache_clear()
    with pytest.raises(Absent, match="cannot be imported"):
        flashinfer._import()


def test_copies_that_do_not_fit_are_not_made(problem, monkeypatch):
    monkeypatch.setitem(torch_sdpa.MAX_COPY_BYTES, "cpu", 10)
    with pytest.raises(Absent, match="KV copy per branch"):
        open_provider("torch:sdpa").prepare(problem)


def test_groups_and_names():
    assert names_of(["ours"]) == ["ramify:auto", *(f"ramify:{method}" for method in METHODS)]
    assert names_of(["torch:sdpa", "peers"])[0] == "torch:sdpa"
    assert len(names_of(["all", "ours", "torch:flex"])) == len(OURS) + len(PEERS)
    assert set(names_of(["all"])) | {*BY_BACKEND, UNCUT} == set(PROVIDERS)
    assert set(names_of(["all"])) - set(names_of(["ours", "peers"])) == {"torch:flex"}
    with pytest.raises(InputError, match="ramify:auto"):
        names_of(["vllm"])


def test_a_backend_may_be_named(problem):
    assert names_of(["ramify:node@cpu"]) == ["ramify:node@cpu"]
    prepared = open_provider("ramify:node@cpu").prepare(problem)
    prepared.plan()
    assert (prepared.facts().backend, prepared.facts().method) == ("cpu", "node")
