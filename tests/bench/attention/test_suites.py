"""The suites: what a case holds is what its name says, and it fits."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.bench.attention.shapes import Case, parse_levels
from ramify.bench.attention.suites import SUITES, suite
from ramify.core.errors import InputError

CASES = [case for name in SUITES for case in suite(name)]
each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c.suite}-{c.heads.name}-{c.tree.name}"
)


def _parts(case: Case) -> tuple[list[int], list[int], int]:
    shape, _, draft = case.tree.name.partition("+draft")
    nodes, tokens = shape.partition("~")[0].split("x")
    return [int(n) for n in nodes.split(",")], [int(n) for n in tokens.split(",")], int(draft or 0)


@each_case
def test_counts_are_those_of_the_name(case):
    """Every leaf sees one node per level, levels are stored once, drafts are rows."""
    nodes, tokens, draft = _parts(case)
    forest = case.tree.forest()
    leaves = nodes[-1]
    assert forest.num_rows == leaves * max(draft, 1)
    stored = sum(n * t for n, t in zip(nodes, tokens, strict=True))
    assert forest.unique_tokens == stored + leaves * draft
    if not draft and ("~" not in case.tree.name or len(nodes) == 1):
        assert forest.path_tokens == leaves * sum(tokens)


@each_case
def test_rows_are_in_depth_first_order(case):
    forest = case.tree.forest()
    assert np.array_equal(forest.row_order, np.arange(forest.num_rows))


@each_case
def test_kv_fits(case):
    token_bytes = 2 * case.heads.num_kv_heads * case.heads.head_dim * 2
    assert case.tree.num_slots() * token_bytes < 17 << 30


def test_no_case_twice():
    names = [(case.heads.name, case.tree.name, case.suite) for case in CASES]
    assert len(set(names)) == len(names)


def test_trees_of_a_forest_differ():
    for shape in ("12,390x4096,256~0.0833", "32,1040x1024,64~0.0833"):
        tree = parse_levels(shape)
        roots = tree.parent.count(-1)
        rows = np.bincount(np.array(tree.parent)[roots:])
        assert (rows.min(), rows.max()) == (5, 60)
        assert shape in [case.tree.name for case in suite("forest")]


def test_flat_shares_nothing():
    for case in suite("flat") + suite("lean"):
        forest = case.tree.forest()
        assert forest.path_tokens == forest.unique_tokens


def test_unknown_suite():
    with pytest.raises(InputError, match="fasttree, deft"):
        suite("slow")
