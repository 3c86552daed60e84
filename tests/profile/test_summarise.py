"""Traced passes by hand: sums, medians with intervals, calls, gaps, and who waits for whom."""

from __future__ import annotations

import pytest

from ramify.profile.attribute import Label, Work
from ramify.profile.measured import Measured, agree
from ramify.profile.operators import kinds
from ramify.profile.summarise import summarise
from ramify.profile.trace import Span

MM = Label(kinds.LINEAR, "aten.mm", "unet.a.b.c.d", ((4, 8), (8, 2)))
ADD = Label(kinds.ELEMENTWISE, "aten.add", "unet.a.x", ((4, 2),))


def one_pass(scale):
    """A product of two kernels in a row, another product, an addition that begins early."""
    return [
        Work(MM, Span("gemm", 0, 10 * scale), 0, (1, 1, 1), (64, 1, 1)),
        Work(MM, Span("reduce", 10 * scale + 2, 5), 0, (2, 1, 1), (64, 1, 1)),
        Work(MM, Span("gemm", 100, 20), 1, (1, 1, 1), (64, 1, 1)),
        Work(ADD, Span("add", 110, 15), 2, (9, 1, 1), (64, 1, 1)),
    ]


def summary(walls, on_gpu=True, least=()):
    passes = [one_pass(scale) for scale in (1, 3, 2)]
    return Measured(
        device="cuda", attention="flash",
        **summarise(walls, passes, dict(least), on_gpu=on_gpu),
    )  # fmt: skip


def test_times_add_up_and_carry_their_interval():
    found = summary([90e-6, 60e-6, 70e-6], least=[(("aten.mm", MM.shapes), 4e-6)])
    linear, add = found.kinds
    assert (linear.seconds, linear.low_s, linear.high_s) == pytest.approx((45e-6, 35e-6, 55e-6))
    assert add.seconds == pytest.approx(5e-6)  # the moments it shares count for the earlier
    assert (found.wall_low_s, found.wall_s, found.wall_high_s) == (60e-6, 70e-6, 90e-6)
    assert found.busy_share == pytest.approx(50 / 70) and found.gap_share == pytest.approx(2 / 70)
    assert found.attributed_share == pytest.approx(52 / 70) and found.is_launch_bound
    product = found.operators[0]
    assert (product.op, product.count, product.least_s) == ("aten.mm", 2, pytest.approx(8e-6))
    assert [entry.module for entry in found.modules] == ["unet.a.b.c", "unet.a.x"]
    gemm = found.kernels[0]
    assert (gemm.kernel, gemm.grid, gemm.count, gemm.kind) == ("gemm", (1, 1, 1), 2, kinds.LINEAR)


def test_a_busy_gpu_is_not_launch_bound_and_a_cpu_has_no_kernels():
    assert not summary([55e-6] * 3).is_launch_bound
    found = summary([500e-6] * 3, on_gpu=False)
    assert not found.is_launch_bound and not found.kernels and not found.gap_share


def test_measurements_agree_where_their_intervals_meet():
    first, second = summary([60e-6, 70e-6, 80e-6]), summary([79e-6, 90e-6, 99e-6])
    assert agree(first, second) and agree(second, first)
    assert not agree(first, summary([81e-6, 90e-6, 99e-6]))
