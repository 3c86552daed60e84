"""Which models the suite runs, and the row of a report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramify.profile import characterise
from ramify.profile.measured import KindTime, Measured
from ramify.profile.operators import kinds
from ramify.profile.presets.preset import load_preset, preset_names
from ramify.profile.report import flops_of
from ramify.profile.suite import MEASURED, entries, suite_row


def test_bounds_are_of_all_models_and_measurements_of_those_that_stand_for_the_papers():
    targets = [entry.target for entry in entries((), is_measured=False)]
    assert targets == [*preset_names(), "ramify_step"]
    assert entries((), is_measured=True) == list(MEASURED)
    for entry in MEASURED[:-1]:
        preset = load_preset(entry.target)
        assert set(entry.sizes) <= set(preset.sizes)
        assert set(entry.only) <= {part.name for part in preset.components}


def test_a_named_model_is_measured_at_all_its_sizes():
    labels = [entry.label for entry in entries(["modelscope", "flux"], is_measured=True)]
    assert labels == ["modelscope", *(f"modelscope frames={n}" for n in (8, 32, 64)), "flux"]
    assert [entry.label for entry in entries(["modelscope"], is_measured=False)] == ["modelscope"]


def test_a_row_holds_what_tables_need():
    report = characterise("llama_7b", sizes={"prompt_tokens": 64, "new_tokens": 8})
    times = (KindTime(kind=kinds.LINEAR, seconds=2e-3, low_s=1e-3, high_s=3e-3),)
    measured = Measured(device="cuda", attention="naive", run="graphs", repeats=5, wall_s=2e-3,
                        traced_s=2.1e-3, busy_share=0.97, gap_share=0.02, kinds=times)  # fmt: skip
    prefill, decode = report.components
    row = suite_row(
        replace(report, components=(replace(prefill, measured=(measured,)), decode)), "l"
    )
    assert row.flops == flops_of(prefill) + 8 * flops_of(decode)
    shares = row.linear + row.attention + row.elementwise + row.convolution
    assert 0.9 < shares < 1 and row.covered == 1
    part = row.component("prefill")
    (found,) = part.measured
    assert found.seconds == {kinds.LINEAR: 2e-3} and found.run == "graphs"
    assert found.attributed_share == measured.attributed_share == pytest.approx(0.99)
    assert found.tracing_overhead == pytest.approx(1.05)
    # naive attention has longer to go at least than flash attention
    flash = part.flash_s * part.flash_s_share[kinds.PREFILL]
    assert found.least_s[kinds.PREFILL] > flash
    assert sum(part.flops_by_kind.values()) == part.flops == pytest.approx(flops_of(prefill))
