"""A small module measured on this machine: times add up, and naive attention is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ramify.core.errors import InputError
from ramify.profile import MeasureSettings, characterise
from ramify.profile.operators import kinds
from ramify.profile.page import page
from ramify.profile.report import measurements
from ramify.profile.totals import efficiency


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 64, 3, padding=1), nn.GroupNorm(4, 64)
        self.proj = nn.Linear(64, 192)

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        q, k, v = (t.unflatten(-1, (4, 16)).transpose(1, 2) for t in self.proj(x).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_a_pass_is_attributed_whole():
    settings = MeasureSettings(repeats=3)
    report = characterise(Small(), (torch.randn(2, 8, 40, 40),), hardware="cpu", measured=settings)
    assert [entry[2].attention for entry in measurements(report)] == ["flash", "naive"]
    for _, parts, measured in measurements(report):
        expected = {kinds.SPATIAL, kinds.CONVOLUTION, kinds.LINEAR, kinds.GROUP_NORM}
        assert expected <= {entry.kind for entry in measured.kinds}
        assert 0.7 < measured.busy_share < 1.4  # the machine may be busy with other work
        assert measured.wall_low_s <= measured.wall_s <= measured.wall_high_s
        assert not measured.is_launch_bound and efficiency(parts, measured)[kinds.LINEAR] > 0
    assert page(report).count("Measured: ") == 2


def test_presets_run_with_random_weights(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48,'
        '"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 128}'
    )
    settings = MeasureSettings(repeats=2, attentions=("flash",))
    sizes = {"prompt_tokens": 16, "new_tokens": 4}
    report = characterise(tmp_path, sizes=sizes, dtype=torch.float32, measured=settings)
    kinds_of = {name: {e.kind for e in found.kinds} for name, _, found in measurements(report)}
    assert kinds.PREFILL in kinds_of["prefill"] and kinds.DECODE in kinds_of["decode"]


def test_running_out_of_memory_keeps_what_there_is():
    class Hungry(Small):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if type(self).calls > 4:
                raise torch.OutOfMemoryError("tried to allocate too much\nand more")
            return super().forward(x)

    settings = MeasureSettings(repeats=1)
    report = characterise(Hungry(), (torch.randn(1, 8, 8, 8),), measured=settings)
    assert report.main.groups
    errors = [found.error for _, _, found in measurements(report)]
    assert errors == ["tried to allocate too much"] * 2
    assert "tried to allocate too much" in page(report)


def test_what_is_refused():
    with pytest.raises(InputError, match="at least 1 repeat"):
        MeasureSettings(repeats=0)
    with pytest.raises(InputError, match="flash, naive"):
        replace(MeasureSettings(), attentions=("paged",))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU"):
            MeasureSettings(device="cuda")


@pytest.mark.gpu
def test_on_a_gpu_kernels_take_the_clock_time():
    x = torch.randn(64, 8, 64, 64, device="cuda")
    settings = MeasureSettings(device="cuda", repeats=5)
    report = characterise(Small().cuda(), (x,), measured=settings)
    for _, _, measured in measurements(report):
        assert 0.9 < measured.busy_share < 1.05 and measured.error is None
