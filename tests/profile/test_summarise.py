"""Traced passes by hand: sums, medians with intervals, calls, gaps, and who waits for whom."""

from __future__ import annotations

import pytest

from ramify.profile.attribute import Label, Work
from ramify.profile.measured import Measured, agree
from ramify.profile.operators import kinds
from ramify.profile.summarise import summarise
from ramify.profile.trace import Span
from ramify.profile.window import Window

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
    windows = [Window((-8.0, 192.0), [one_pass(scale)]) for scale in (1, 3, 2)]
    return Measured(
        device="cuda", attention="flash",
        **summarise(walls, windows, dict(least), on_gpu=on_gpu),
    )  # fmt: skip


def test_times_add_up_and_carry_their_interval():
    found = summary([90e-6, 60e-6, 70e-6], least=[(("aten.mm", MM.shapes), 4e-6)])
    linear, add = found.kinds
    assert (linear.seconds, linear.low_s, linear.high_s) == pytest.approx((45e-6, 35e-6, 55e-6))
    assert add.seconds == pytest.approx(5e-6)  # the moments it shares count for the earlier
    assert (found.wall_low_s, found.wall_s, found.wall_high_s) == (60e-6, 70e-6, 90e-6)
    assert found.traced_s == pytest.approx(200e-6)
    assert found.tracing_overhead == pytest.approx(200 / 70)
    assert found.busy_share == pytest.approx(50 / 200) and found.gap_share == pytest.approx(
        10 / 200
    )
    assert found.attributed_share == pytest.approx(60 / 200)
    product = found.operators[0]
    assert (product.op, product.count, product.least_s) == ("aten.mm", 2, pytest.approx(8e-6))
    assert [entry.module for entry in found.modules] == ["unet.a.b.c", "unet.a.x"]
    gemm = found.kernels[0]
    assert (gemm.kernel, gemm.grid, gemm.count, gemm.kind) == ("gemm", (1, 1, 1), 2, kinds.LINEAR)


def test_a_busy_gpu_is_not_launch_bound_and_a_cpu_has_no_kernels():
    assert not summary([55e-6] * 3).is_launch_bound
    found = summary([500e-6] * 3, on_gpu=False)
    assert not found.is_launch_bound and not found.kernels and not found.gap_share


def in_a_row(num_passes, pause_us, delay_us=None):
    """Passes of two kernels of 40 us; the host launches ahead, or the second of each too late."""
    passes, at = [], 20.0
    for index in range(num_passes):
        first = Work(MM, Span("gemm", at, 40), 2 * index, launched_us=5.0 + index)
        begin = first.span.end_us + pause_us + (delay_us or 0)
        launched = 5.0 + index if delay_us is None else begin - pause_us
        second = Work(ADD, Span("add", begin, 40), 2 * index + 1, launched_us=launched)
        passes.append([first, second])
        at = second.span.end_us + pause_us
    return Window((0.0, at + 10), passes)


def measured(walls, *windows):
    fields = summarise(walls, windows, {}, on_gpu=True)
    return Measured(device="cuda", attention="flash", **fields)


def test_passes_in_a_row_are_one_pass_each():
    found = measured([86e-6] * 3, in_a_row(20, 2), in_a_row(20, 2))
    assert found.traced_s == pytest.approx((20 + 20 * 84 + 10) * 0.5e-7)
    assert [entry.seconds for entry in found.kinds] == pytest.approx([40e-6, 40e-6])
    assert {entry.op: entry.count for entry in found.operators} == {"aten.mm": 1, "aten.add": 1}
    assert [entry.count for entry in found.kernels] == [1, 1]
    assert found.busy_share == pytest.approx(1600 / 1710)
    assert found.gap_share == pytest.approx(2 * 39 / 1710)
    # 20 us to the device, and 10 + 2 back from it are nobody's
    assert found.attributed_share == pytest.approx(1 - 32 / 1710)
    assert found.waiting_share == pytest.approx(20 / 1710) and found.waits == "never"


def test_who_waits_for_whom():
    """By the clock, and under the profiler, where a host may be too slow that else is not."""
    slow = in_a_row(10, 2, 50)
    assert measured([86e-6], slow).waits == "traced"
    assert measured([134e-6], slow).waits == "always"
    assert measured([86e-6], slow).attributed_share < 0.7


def test_what_a_trace_has_lost_is_not_taken_for_waiting():
    kept = in_a_row(20, 2)
    lost = Window(kept.range, [*kept.passes[:8], *kept.passes[13:]])
    found = measured([86e-6], lost)
    assert found.waits == "never" and found.attributed_share < 0.8


def test_measurements_agree_where_their_intervals_meet():
    first, second = summary([60e-6, 70e-6, 80e-6]), summary([79e-6, 90e-6, 99e-6])
    assert agree(first, second) and agree(second, first)
    assert not agree(first, summary([81e-6, 90e-6, 99e-6]))
