"""Sequence lengths of Stable Diffusion as its paper's UNet has them, and a video by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ramify.profile.model import characterise
from ramify.profile.operators.kinds import SPATIAL, TEMPORAL
from ramify.profile.sequence import (
    crossover,
    length_histogram,
    length_range,
    length_trace,
    similarity_bytes,
    spatial_temporal,
    sweep,
)


def denoiser(**sizes):
    pytest.importorskip("diffusers")
    return characterise("sd15", sizes=sizes, cfg=False, only=["denoiser"])


def test_the_trace_of_stable_diffusion_goes_down_and_up():
    part = denoiser(side=512).main
    expected = [4096, 4096, 1024, 1024, 256, 256, 64]
    expected += [256] * 3 + [1024] * 3 + [4096] * 3
    assert length_trace(part) == expected
    assert length_range(part) == (64, pytest.approx(4096 * 16 / sum(expected)))
    longest = length_histogram(part)[0]
    assert (longest.q_len, longest.count) == (4096, 5)
    squares = [length**2 * length**-0.5 for length in expected]  # channels double as pixels quarter
    assert longest.flops_share == pytest.approx(5 * squares[0] / sum(squares), rel=0.02)


def test_matrices_grow_with_the_fourth_power_of_the_side_and_convolutions_with_the_second():
    points = sweep(lambda side: denoiser(side=side), "side", [256, 512, 1024])
    matrices = [point.matrix_bytes for point in points]
    assert matrices[1] == 16 * matrices[0] and matrices[2] == 16 * matrices[1]
    convolutions = [point.flops_by_kind["convolution"] for point in points]
    assert convolutions[2] / convolutions[1] == pytest.approx(4, rel=1e-3)
    single = similarity_bytes(denoiser(side=512).main)
    assert single[1] == 2 * 8 * 4096**2 and single[0] == matrices[1]


class Video(nn.Module):
    """One spatial and one temporal attention over [frames, pixels, 32] of 2 heads."""

    def __init__(self):
        super().__init__()
        self.spatial, self.temporal = Attend(), Attend()

    def forward(self, x):
        return self.temporal(self.spatial(x).transpose(0, 1))


class Attend(nn.Module):
    def forward(self, x):
        q = x.unflatten(-1, (2, 16)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(-2)


def test_temporal_attention_overtakes_spatial_when_frames_outnumber_pixels():
    def at(frames):
        return characterise(Video(), (torch.empty(frames, 64, 32, device="meta"),))

    found = spatial_temporal(at(16).main)
    assert found.spatial_flops == 4 * 16 * 64**2 * 32
    assert found.temporal_flops == 4 * 64 * 16**2 * 32
    for values in ([8, 16], [32, 128]):  # beyond the sweep, and inside it
        assert crossover(sweep(at, "frames", values)) == pytest.approx(64)
    assert {SPATIAL, TEMPORAL} <= set(sweep(at, "frames", [8])[0].flops_by_kind)
    assert crossover(sweep(at, "frames", [8])) is None
