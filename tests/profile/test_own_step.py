"""Ramify's own step: closed forms against the model that they count, and profiles as one row."""

from __future__ import annotations

import pytest
import torch

from ramify import LLM
from ramify.models.config import read_config
from ramify.profile.hardware import find_hardware
from ramify.profile.operators import kinds
from ramify.profile.own_step import NEW_TOKENS, measured_step, step_report
from ramify.profile.report import flops_of
from ramify.profile.shape import parse_shape
from ramify.profile.step import GroupTime, StepProfile
from ramify.profile.totals import totals
from ramify.testing.models import save_tiny_llama


def test_weights_and_bytes_are_those_of_the_engine(tmp_path):
    save_tiny_llama(tmp_path)
    config, shape = read_config(tmp_path), parse_shape("100,4,2")
    (part,) = step_report(config, "tiny", shape, find_hardware("cpu")).components
    executor = LLM(str(tmp_path), device="cpu", num_slots=64).engine.executor
    itemsize = torch.finfo(getattr(torch, config.dtype or "bfloat16")).bits // 8
    assert part.num_params * itemsize == executor.weight_bytes
    found = totals([part])
    live = 2 * (100 + 4 * NEW_TOKENS)
    q_and_out = 2 * 8 * config.num_q_heads * config.head_dim * itemsize * config.num_layers
    kv_bytes = live * executor.kv_bytes_per_token
    assert found[kinds.DECODE].bytes_moved == kv_bytes + q_and_out
    assert found[kinds.DECODE].flops == (
        config.num_layers * 4 * 8 * config.num_q_heads * (100 + NEW_TOKENS) * config.head_dim
    )
    matrices = part.num_params - config.vocab_size * config.hidden_size
    matrices -= (2 * config.num_layers + 1) * config.hidden_size  # norms
    assert found[kinds.LINEAR].flops == 2 * 8 * matrices
    assert flops_of(part) == found[kinds.LINEAR].flops + found[kinds.DECODE].flops


def profile(step_us, product_us):
    groups = [("qkv product", product_us), ("head product", 5), ("attention", 20), ("merge", 4)]
    groups += [("sampling", 3), ("rope and store", 2)]
    return StepProfile(
        shape="100,4,2", num_timed=4, num_traced=3, step_us=step_us, host_us=None,
        traced_step_us=step_us, launches=9, idle_share=0.1, pause_share=0.08,
        groups=tuple(GroupTime(group=g, us=us, share=0.1, launches=1) for g, us in groups),
    )  # fmt: skip


def test_profiles_become_one_measurement():
    found = measured_step([profile(100, 40), profile(120, 60), profile(90, 50)], "cuda")
    walls = (found.wall_low_s, found.wall_s, found.wall_high_s)
    assert walls == pytest.approx((90e-6, 100e-6, 120e-6))
    times = {entry.kind: entry.seconds for entry in found.kinds}
    expected = {kinds.LINEAR: 55e-6, kinds.DECODE: 24e-6, kinds.ELEMENTWISE: 5e-6}
    assert times == pytest.approx(expected) and found.busy_share == pytest.approx(0.9)
    assert found.attributed_share == pytest.approx(0.98)
    assert found.waiting_share == pytest.approx(0.02)
    assert found.tracing_overhead == pytest.approx(1)
    on_cpu = measured_step([profile(100, 40)], "cpu")
    assert (on_cpu.gap_share, on_cpu.waiting_share, on_cpu.waits) == (0, 0, "never")
