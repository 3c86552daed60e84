"""A small case with ragged depth and a draft, and its problem on the CPU."""

from __future__ import annotations

import pytest
import torch

from ramify.bench.attention import ceilings
from ramify.bench.attention.problem import Problem, make_problem
from ramify.bench.attention.shapes import Case, Heads, TreeShape, levels

HEADS = Heads(num_q_heads=4, num_kv_heads=2, head_dim=16)


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The full-size copy takes longer than the tests."""
    monkeypatch.setitem(ceilings.COPY_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(ceilings.GEMM_SIZE, "cpu", 64)


@pytest.fixture
def case() -> Case:
    """Two trees; rows at three depths, one of them inside, and an empty node."""
    tree = TreeShape(
        name="ragged",
        parent=(-1, 0, 0, 1, 1, -1, 5, 6),
        length=(20, 3, 5, 2, 0, 7, 4, 1),
        query_node=(7, 5, 3, 2, 4),
    )
    return Case(suite="test", tree=tree, heads=HEADS)


@pytest.fixture
def draft_case() -> Case:
    return Case(suite="test", tree=levels([2], [9], draft=5), heads=HEADS)


@pytest.fixture
def problem(case: Case) -> Problem:
    return make_problem(case, device=torch.device("cpu"), dtype=torch.float32)
