"""A planned forest is run, its bytes counted once, and its time taken apart from the plan."""

from __future__ import annotations

import pytest
import torch

from ramify.attention import TreeAttention
from ramify.bench.attention.achieved import measure_plan
from ramify.bench.attention.timers import WallTimer
from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.testing.trees import few_shot, random_forest


@pytest.mark.parametrize("kv_dtype", [None, torch.float8_e4m3fn])
def test_bytes_are_those_of_one_run(kv_dtype):
    op = TreeAttention(4, 2, 16, torch.bfloat16, method="flatten", kv_dtype=kv_dtype)
    forest = few_shot(branches=4, prompt=50, generated=8).forest
    op.plan(forest)
    found = measure_plan(op, forest, WallTimer(), repeats=4)
    assert found.kv_bytes_read == op.explain().kv_bytes_read == (50 + 4 * 8) * op.heads.token_bytes
    assert (found.backend, found.timing, found.repeats) == ("cpu", "wall", 4)
    assert 0 < found.p20_us <= found.p50_us <= found.p80_us


def test_runs_of_a_node_and_forests_without_rows():
    op = TreeAttention(4, 2, 16, torch.float64)
    for forest in (random_forest(1).forest, Forest.from_nodes([-1], [3], [0], [])):
        op.plan(forest)
        assert measure_plan(op, forest, WallTimer(), repeats=1).kv_bytes_read >= 0


def test_bad_repeats():
    op = TreeAttention(4, 2, 16)
    forest = few_shot().forest
    op.plan(forest)
    with pytest.raises(InputError, match="repeats: expected at least 1, got 0"):
        measure_plan(op, forest, WallTimer(), repeats=0)
