"""Every preset against counts that another tool made of the same public configs.

Those come from torch's FLOP counter over diffusers 0.42 on the meta device: billions of parameters,
TFLOP of one denoiser pass, the shares of convolution, linear and attention in it, and how many
times longer naive attention takes at least on an A100.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ramify.profile.model import characterise
from ramify.profile.operators.kinds import ATTENTION, CONVOLUTION, LINEAR
from ramify.profile.report import covered_share, flops_of, unknown_ops
from ramify.profile.totals import flash_speedup, totals

pytest.importorskip("diffusers")


@dataclass(frozen=True)
class Row:
    preset: str
    params: str  # billions, as many digits as are known
    teraflops: float
    shares: tuple[int, int, int]  # convolution, linear, attention, percent of FLOPs
    speedup: float | None = None
    sizes: tuple[tuple[str, int], ...] = ()
    cfg: bool | None = None
    component: str = "denoiser"


ROWS = [
    Row("sd15", "0.860", 0.360, (62, 34, 5), 1.18, (("side", 256),)),
    Row("sd15", "0.860", 1.607, (55, 29, 16), 1.73),
    Row("sd15", "0.860", 4.296, (47, 24, 29), 2.41, (("side", 768),)),
    Row("sd15", "0.860", 9.348, (38, 20, 42), 3.12, (("side", 1024),)),
    Row("sd15", "0.084", 2.515, (98, 0, 1), 1.00, component="vae"),
    Row("sdxl", "2.567", 13.52, (24, 64, 12), 1.36),
    Row("if_xl", "4.305", 5.758, (89, 9, 2), 1.06),
    Row("sr_256", "0.81", 17.31, (98, 1, 1), 1.02),
    Row("amused", "0.608", 0.455, (8, 89, 4), 1.09),
    Row("modelscope", "1.411", 9.774, (48, 49, 3), 1.08),
    Row("flux", "11.90", 74.38, (0, 80, 20)),
    Row("sd3", "2.03", 17.81, (0, 68, 33)),
    Row("cogvideox_2b", "1.69", 240.0, (0, 39, 61)),
    Row("wan_1_3b", "1.42", 283.0, (0, 29, 71), cfg=False),
    Row("wan_14b", "14.3", 6523.0, (0, 28, 72), cfg=False),
    Row("hunyuan_video", "12.8", 12069.0, (0, 13, 87)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.preset}-{row.teraflops}")
def test_row(row):
    report = characterise(
        row.preset, hardware="a100", sizes=dict(row.sizes), cfg=row.cfg, only=[row.component]
    )
    (part,) = report.components
    digits = len(row.params.partition(".")[2])
    # one unit of the last digit, as 2.5675 was once written down as 2.567
    assert abs(part.num_params / 1e9 - float(row.params)) < 10**-digits
    assert flops_of(part) / 1e12 == pytest.approx(row.teraflops, rel=0.01)
    found = totals([part], once=True)
    for kinds, percent in zip(([CONVOLUTION], [LINEAR], ATTENTION), row.shares, strict=True):
        flops = sum(found[kind].flops for kind in kinds if kind in found)
        assert 100 * flops / flops_of(part) == pytest.approx(percent, abs=1)
    if row.speedup is not None:
        assert flash_speedup([part]) == pytest.approx(row.speedup, abs=0.015)
    assert covered_share(report) == 1.0 and not unknown_ops(report)


def test_stable_diffusion_after_flash_attention_spends_most_on_convolutions():
    (part,) = characterise("sd15", hardware="a100", only=["denoiser"]).components
    found = totals([part])
    whole = sum(total.flash_s for total in found.values())
    shares = {kind: 100 * total.flash_s / whole for kind, total in found.items()}
    assert shares[CONVOLUTION] == pytest.approx(42, abs=1)
    assert shares[LINEAR] == pytest.approx(22, abs=1)
    assert sum(shares.get(kind, 0) for kind in ATTENTION) == pytest.approx(12, abs=1)
