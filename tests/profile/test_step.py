"""Profiles of steps: of a timeline written by hand, and of a tiny model that decodes on a CPU."""

from __future__ import annotations

import pytest

from ramify import LLM
from ramify.core.errors import ConfigError, InputError
from ramify.profile.shape import parse_shape
from ramify.profile.step import profile_step, summarize
from ramify.profile.trace import Span
from ramify.testing.models import save_tiny_llama


def step_at(begin_us):
    """100 us of work, 10 of them shared by two kernels, then 20 idle until the next step."""
    return [
        Span("gemm", begin_us, 60),
        Span("merge_kernel", begin_us + 50, 20),
        Span("draw_kernel", begin_us + 70, 30),
    ]


def test_a_timeline_by_hand():
    steps = [step_at(begin) for begin in (0, 1000, 1120, 1240, 1360)]
    found = summarize(steps, num_layers=2)
    assert found["num_traced"] == 3 and found["launches"] == 3
    assert found["traced_step_us"] == 120
    assert found["idle_share"] == pytest.approx(20 / 120)
    groups = {group.group: group for group in found["groups"]}
    assert {name: group.us for name, group in groups.items()} == pytest.approx(
        {"products": 60, "merge": 10, "sampling": 30}
    )
    assert groups["sampling"].share == pytest.approx(30 / 120)
    assert all(group.launches == 1 for group in groups.values())


def test_a_trace_without_kernels_is_refused():
    with pytest.raises(ConfigError, match="at least 3 steps"):
        summarize([step_at(0), step_at(100)], num_layers=2)


@pytest.fixture
def llm(tmp_path, run_ahead):
    save_tiny_llama(tmp_path)
    return LLM(str(tmp_path), num_slots=400, prefix_cache=False, run_ahead=run_ahead)


@pytest.mark.parametrize("run_ahead", [False, True])
def test_steps_of_a_tiny_model(llm, tmp_path, run_ahead):
    path = tmp_path / "trace.json.gz"
    found = profile_step(llm, parse_shape("20,3,2"), path=path, num_timed=4, num_traced=5)
    assert path.stat().st_size > 0
    groups = {group.group: group for group in found.groups}
    # two layers: an attention each, four products each and the head's
    assert groups["attention"].launches == 2
    assert groups["qkv product"].launches == groups["down product"].launches == 2
    assert groups["head product"].launches == 1
    assert sum(group.share for group in found.groups) + found.idle_share == pytest.approx(1)
    assert sum(group.launches for group in found.groups) == pytest.approx(found.launches)
    assert 0 <= found.idle_share < 1 and found.step_us > 0
    assert found.host_us is None  # the CPU is host and device
    assert not llm.engine.live.requests
    assert llm.engine.cache.available == llm.engine.limits.num_slots


@pytest.mark.parametrize("run_ahead", [False])
def test_bad_requests(llm, tmp_path, run_ahead):
    shape, path = parse_shape("20,3,1"), tmp_path / "trace.json"
    with pytest.raises(InputError, match="at least 1 of each"):
        profile_step(llm, shape, path=path, num_timed=0, num_traced=1)
    with pytest.raises(InputError, match="at most 512 tokens"):
        profile_step(llm, shape, path=path, num_timed=490, num_traced=5)
