"""Tables of measured rows, by hand: which measurement counts, sums over a generation, claims."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramify.bench.characterise import tables
from ramify.bench.measured_rows import generations
from ramify.bench.suite_result import load_suite
from ramify.core.errors import InputError
from ramify.profile.operators import kinds
from ramify.profile.suite import ComponentRow, MeasuredRow, SuiteRow

TIMES = {kinds.CONVOLUTION: 4e-3, kinds.LINEAR: 2e-3, kinds.SPATIAL: 1e-3, kinds.TEMPORAL: 3e-3}


def measured(run, attention, wall_s, seconds=TIMES, error=None):
    return MeasuredRow(
        device="cuda", run=run, attention=attention, repeats=5, wall_s=wall_s,
        wall_low_s=wall_s - 1e-3, wall_high_s=wall_s + 1e-3, traced_s=1.1 * wall_s,
        busy_share=0.97, gap_share=0.02, waiting_share=0.01,
        is_launch_bound=run == "eager", seconds=seconds, least_s=dict.fromkeys(seconds, 5e-4),
        error=error,
    )  # fmt: skip


def component(name, calls, *found):
    return ComponentRow(
        name=name, num_params=1, calls=calls, batch=2, flops=10, flash_s=1.0, flash_speedup=1.0,
        flops_share={}, flash_s_share={}, fused_s_share={},
        flops_by_kind={kinds.SPATIAL: 40, kinds.TEMPORAL: 2}, measured=found,
    )  # fmt: skip


def row(name, *parts, **sizes):
    return SuiteRow(
        name=name, stands_for="", main="denoiser", num_params=1, flops=1, flash_s=1.0,
        flash_speedup=1.0, convolution=0.0, linear=0.0, attention=0.0, elementwise=0.0, covered=1.0,
        components=parts, sizes=sizes,
    )  # fmt: skip


DENOISER = component(
    "denoiser", 50,
    measured("eager", "flash", 25e-3), measured("graphs", "flash", 10e-3),
    measured("eager", "naive", 26e-3), measured("graphs", "naive", 15e-3),
)  # fmt: skip
VAE = component("vae", 1, measured("graphs", "flash", 100e-3, {kinds.CONVOLUTION: 90e-3}),
                measured("graphs", "naive", 100e-3, {kinds.CONVOLUTION: 90e-3}))  # fmt: skip
ROWS = [
    row("modelscope", DENOISER, VAE, frames=16),
    row("modelscope frames=8", DENOISER, frames=8),
    row("amused", component("denoiser", 12, measured("eager", "flash", 9e-3))),
    row("sdxl", component("denoiser", 50, measured("eager", "flash", 0.0, {}, "out of memory"))),
]


def test_a_generation_is_its_components_as_often_as_they_run():
    video, masked = generations(ROWS)
    assert video.flash_s == pytest.approx(0.6) and video.naive_s == pytest.approx(0.85)
    assert video.main_share == pytest.approx(5 / 6)
    assert video.share([kinds.CONVOLUTION]) == pytest.approx((0.2 + 0.09) / (0.5 + 0.09))
    assert masked.name == "amused" and masked.speedup is None


def test_tables():
    made = tables(ROWS)
    passes = made["measured-passes"].splitlines()
    assert passes[2] == (
        "| `modelscope`, denoiser | 10.00 (9.00 to 11.00) | 15.00 (14.00 to 16.00) | 1.50 | 40 % | "
        "20 % | 40 % | 0 % | 0 % |"
    )
    assert "| `modelscope` | 0.6 | 1.42 | 49 % |" in made["measured-generations"]
    assert (
        "| 8 (`modelscope frames=8`, denoiser) | 20.0 | 3.00 | 75 % | 75 % | 50 % | 17 % |"
        in (made["measured-temporal"])
    )
    launches = made["measured-launches"]
    assert (
        "25.00 (24.00 to 26.00) | 10.00 (9.00 to 11.00) | 2.50 | 40 %, launch-bound |" in launches
    )
    claims = made["measured-claims"]
    assert "diffusion models | `modelscope` 49 % |" in claims
    assert "`amused` 20 %" in claims and "8 frames 75 %, 16 frames 75 %" in claims
    assert "sdxl" not in "".join(made.values())


def test_passes_that_the_gpu_bounds_are_listed_and_counted():
    found = [
        measured("graphs", "flash", 10e-3),
        replace(measured("graphs", "naive", 10e-3), busy_share=0.9),
        replace(measured("graphs", "flash", 10e-3), waiting_share=0.2),
        measured("eager", "flash", 30e-3),
        replace(measured("graphs", "flash", 10e-3), device="cpu"),
        measured("graphs", "flash", 0.0, {}, "out of memory"),
    ]
    made = tables([row("sd15", component("denoiser", 1, *found))])
    _, _, first, second = made["measured-attribution"].splitlines()
    assert first == (
        "| `sd15`, denoiser | flash, graphs | 10.00 (9.00 to 11.00) | 1.10 | 97.0 % | 2.0 % | "
        "1.0 % | 99.0 % |"
    )
    assert second.endswith("| 92.0 % |")
    counts = [line.split(" | ")[1:] for line in made["measured-waits"].splitlines()[2:]]
    assert counts == [["2", "1", "1 |"], ["1", "1", "0 |"], ["1", "1", "1 |"]]


def test_gains_compare_passes_that_ran_alike():
    part = component(
        "denoiser", 1, measured("graphs", "flash", 10e-3), measured("eager", "naive", 90e-3)
    )
    (found,) = generations([row("sd15", part)])
    assert (
        found.naive_s is None
        and "| 10.00 (9.00 to 11.00) | - | - |" in (tables([row("sd15", part)])["measured-passes"])
    )


def test_nothing_measured_makes_no_tables(tmp_path):
    assert tables([row("sd15", component("denoiser", 1))]) == {}
    with pytest.raises(InputError, match="rows of a suite"):
        load_suite([tmp_path / "none.json"])
