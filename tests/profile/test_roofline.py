"""Least times by hand."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.profile.hardware import Hardware, find_hardware
from ramify.profile.operators import kinds
from ramify.profile.operators.record import AttentionShape, OpRecord
from ramify.profile.roofline import fused_s, least_s

MACHINE = Hardware(name="unit", flops_per_s={"bfloat16": 100.0, "float32": 10.0}, bytes_per_s=5.0)


def op(kind, flops, bytes_moved, dtype="bfloat16", attention=None):
    return OpRecord(
        op="x", kind=kind, module="", dtype=dtype, shapes=(), flops=flops,
        bytes_moved=bytes_moved, attention=attention,
    )  # fmt: skip


def test_the_longer_of_arithmetic_and_bytes():
    assert least_s(op(kinds.LINEAR, 1000, 10), MACHINE) == 10
    assert least_s(op(kinds.LINEAR, 100, 50), MACHINE) == 10
    assert least_s(op(kinds.LINEAR, 1000, 10, "float32"), MACHINE) == 100
    assert MACHINE.ridge == 20


def test_naive_attention_passes_four_times_over_its_matrix():
    shape = AttentionShape(
        batch=1, heads=2, q_len=3, kv_len=5, head_dim=4, value_dim=4, is_causal=False,
        kv_source="self", itemsize=2,
    )  # fmt: skip
    record = op(kinds.SPATIAL, shape.flops, 40, attention=shape)
    assert shape.flops == 2 * 2 * 3 * 5 * 8
    assert least_s(record, MACHINE) == 8
    assert least_s(record, MACHINE, "naive") == (40 + 4 * 2 * 2 * 3 * 5) / 5


def test_fusing_frees_only_elementwise_work():
    assert fused_s(op(kinds.ELEMENTWISE, 0, 50), MACHINE) == 0
    assert fused_s(op(kinds.NORM, 0, 50), MACHINE) == 10


def test_known_machines():
    assert find_hardware("a100").ridge == pytest.approx(153, abs=0.5)
    assert find_hardware("h200").ridge == pytest.approx(206, abs=0.5)
    with pytest.raises(InputError, match="a100"):
        find_hardware("b300")
