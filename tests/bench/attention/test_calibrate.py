"""The cost table: counts of a plan by hand, and costs recovered from times made of known ones."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from ramify.attention import HeadShape, TreeAttention, build_plan
from ramify.attention.plan.cost import CostTable, Tuning
from ramify.bench.attention import calibrate as module
from ramify.bench.attention.calibrate import (
    Point,
    busy_sms,
    calibrate,
    measure_point,
    probes,
    requests,
    solve,
)
from ramify.bench.attention.cost_model import Costs, Work, work_of
from ramify.bench.attention.shapes import Heads, levels
from ramify.bench.attention.timers import WallTimer
from ramify.core.errors import InputError

GQA = HeadShape(num_q_heads=32, num_kv_heads=8, head_dim=128, itemsize=2)
KNOWN = Costs(
    step_us=0.9,
    reread_us=0.4,
    compute_us=0.7,
    unit_us=1.2,
    partial_us=0.1,
    launch_us=5.0,
    volume_us=0.3,
)
NUM_SMS = 64
NOT_FITTED = {"merge_us", "masked_part"}


def _work(tree, method):
    return work_of(build_plan(tree.forest(), method, heads=GQA), GQA)


def test_every_cost_has_a_probe():
    assert {f"{probe.term}_us" for probe in probes(NUM_SMS)} == set(asdict(Costs())) - NOT_FITTED
    assert Costs(step_us=3.0).table == CostTable(step_us=3.0)


def test_counts_of_requests():
    """3 requests of 4 rows: 16 packed rows, 2 steps per KV head, nothing to merge."""
    work = _work(requests(3, 128, rows=4), "node")
    assert work == Work(step=48, reread=0, compute=6, unit=24, merge=0, depth=0, longest=2)


def test_counts_of_partials():
    """2 requests of 2 nodes: each row has 2 partials of 4 packed rows, in 8 KV heads."""
    work = _work(requests(2, 64, nodes=2), "node")
    assert (work.unit, work.merge, work.depth) == (32, 8.0, 2)


def test_counts_of_row_tiles_and_branches():
    """256 packed rows in 2 tiles read their KV twice, and so do 2 branches on their own."""
    wide = _work(requests(1, 64, rows=64), "node")
    assert (wide.step, wide.reread, wide.compute, wide.unit) == (8, 8, 16, 16)
    both = _work(levels([1, 2], [64, 64]), "per_branch")
    assert (both.step, both.reread) == (24, 8)


def test_few_units_take_as_long_as_one():
    one, many = _work(requests(1, 64), "node"), _work(requests(64, 64), "node")
    assert one.predicted_us(KNOWN, 64) == pytest.approx(5.0 + 1.2 + 0.9)
    # eight KV heads of 64 requests on 64 SMs
    assert many.predicted_us(KNOWN, 64) == pytest.approx(5.0 + 8 * (1.2 + 0.9))


def test_known_costs_are_recovered():
    measured = []

    def measure(point):
        plan = build_plan(point.tree.forest(), point.method, heads=GQA)
        measured.append(work_of(plan, GQA).predicted_us(KNOWN, NUM_SMS))
        return plan, measured[-1]

    costs, points = solve(probes(NUM_SMS), measure, GQA, NUM_SMS)
    assert asdict(costs) == pytest.approx(asdict(KNOWN), rel=1e-6)
    assert [point.us for point in points] == measured
    assert [point.predicted_us for point in points] == pytest.approx(measured)


def test_a_negative_cost_is_none():
    times = iter([2.0, 1.0])

    def measure(point):
        return build_plan(point.tree.forest(), point.method, heads=GQA), next(times)

    costs, _ = solve(probes(NUM_SMS)[:1], measure, GQA, NUM_SMS)
    assert costs.step_us == pytest.approx(0.0, abs=1e-9)


def test_units_are_the_same_on_every_sm():
    for probe in probes(132):
        for point in (probe.small, probe.large):
            if point is not None and probe.term not in ("launch", "partial"):
                assert _work(point.tree, point.method).unit % 132 == 0


def test_a_point_is_measured(monkeypatch):
    monkeypatch.setattr(module, "HEADS", Heads(num_q_heads=4, num_kv_heads=2, head_dim=16))
    point = Point(method="node", tree=requests(2, 5, rows=2, nodes=2))
    plan, us = measure_point(point, torch.device("cpu"), WallTimer(), "auto", 3)
    assert plan.num_items == 4 and us > 0


def test_busy_sms_are_those_that_have_workers():
    op = TreeAttention(32, 8, 128)
    assert busy_sms(op, 132) == 132
    for workers, busy in ((16, 128), (66, 132)):
        op._backend.tuning = Tuning(num_workers=workers)
        assert busy_sms(op, 132) == busy


def test_a_cpu_is_refused():
    with pytest.raises(InputError, match="an NVIDIA GPU to calibrate, got cpu"):
        calibrate(torch.device("cpu"))


def test_the_command_refuses_a_cpu(capsys):
    from ramify.cli.main import main

    assert main(["bench", "calibrate", "--device", "cpu"]) == 2
    assert "NVIDIA GPU" in capsys.readouterr().err
