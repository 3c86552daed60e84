"""The gate: its oracle against the reference, and what it stops."""

from __future__ import annotations

import pytest
import torch

from ramify.attention.reference import tree_attention_ref
from ramify.bench.attention import check
from ramify.bench.attention.check import error_ratio, make_oracle
from ramify.bench.attention.problem import JUNK


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 29], ids=["row_by_row", "all_rows"])
def test_oracle_is_the_reference(problem, chunk_bytes, monkeypatch):
    monkeypatch.setattr(check, "CHUNK_BYTES", chunk_bytes)
    exact = make_oracle(problem).exact
    q, k, v = (x.double() for x in (problem.q, problem.k, problem.v))
    out, _ = tree_attention_ref(q, k, v, problem.forest)
    torch.testing.assert_close(exact, out, rtol=1e-12, atol=1e-12)


def test_unused_slots_hold_junk_and_used_ones_do_not(problem):
    used = torch.zeros(len(problem.k), dtype=torch.bool)
    for slots in problem.node_slots:
        used[torch.from_numpy(slots)] = True
    assert int(used.sum()) == int(problem.forest.length.sum())
    assert (problem.v[~used] == JUNK).all() and (problem.v[used] != JUNK).all()


def test_small_errors_pass_and_large_ones_do_not(problem):
    oracle = make_oracle(problem)
    assert error_ratio(oracle.naive, oracle) <= 1
    wrong = oracle.exact.clone()
    wrong[-1, -1, -1] += 1e-3
    assert error_ratio(wrong, oracle) > check.FACTOR


def test_a_stray_slot_is_seen(problem):
    """One junk slot among a row's tokens is far outside of the budget."""
    oracle = make_oracle(problem)
    problem.row_slots[0][0] = int((problem.v[:, 0, 0] == JUNK).nonzero()[0, 0])
    assert error_ratio(make_oracle(problem).exact, oracle) > 1e3


@pytest.mark.parametrize("spoil", [torch.nan, torch.inf])
def test_what_is_not_finite_is_wrong(problem, spoil):
    oracle = make_oracle(problem)
    out = oracle.naive.clone()
    out[0, 0, 0] = spoil
    assert error_ratio(out, oracle) == float("inf")


def test_another_shape_is_wrong(problem):
    oracle = make_oracle(problem)
    assert error_ratio(oracle.naive[:-1], oracle) == float("inf")
