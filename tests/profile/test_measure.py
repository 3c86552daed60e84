"""A small module measured on this machine: times add up, and naive attention is named."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from ramify.core.errors import ConfigError, InputError
from ramify.profile import MeasureSettings, characterise, measure
from ramify.profile.attribute import works
from ramify.profile.compare import compare_measured
from ramify.profile.hardware import HARDWARE
from ramify.profile.measure import Subject, _windows
from ramify.profile.operators import kinds
from ramify.profile.page import page
from ramify.profile.report import measurements
from ramify.profile.runs import attention_kernels
from ramify.profile.totals import efficiency
from ramify.profile.trace import TracedPasses, trace_passes
from ramify.profile.window import Window


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
        assert measured.busy_share > 0.4  # the machine may be busy with other work
        in_modules = sum(entry.seconds for entry in measured.modules)
        assert in_modules == pytest.approx(measured.busy_s, rel=0.2)
        names = {entry.module for entry in measured.modules}
        assert names == {"Small", "Small.conv", "Small.norm", "Small.proj"}
        assert measured.wall_low_s <= measured.wall_s <= measured.wall_high_s
        assert not measured.is_launch_bound and efficiency(parts, measured)[kinds.LINEAR] > 0
    assert page(report).count("Measured: ") == 2


def test_operators_are_set_beside_their_least_time():
    settings = MeasureSettings(repeats=2, attentions=("flash",))
    report = characterise(Small(), (torch.randn(2, 8, 40, 40),), hardware="cpu", measured=settings)
    (measured,) = report.measured
    found = {entry.op: entry for entry in measured.operators}
    convolution = found["aten.convolution"]
    assert convolution.shapes == ((2, 8, 40, 40), (64, 8, 3, 3), (64,)) and convolution.count == 1
    (group,) = [group for group in report.main.groups if group.op == "aten.convolution"]
    assert convolution.least_s == group.flash_s > 0
    attention = found["scaled_dot_product_attention"]
    assert attention.shapes == ((2, 4, 1600, 16),) * 3 and attention.least_s > 0


def test_a_trace_covers_the_pass(tmp_path):
    module, x = Small(), torch.randn(2, 8, 40, 40)
    traced = trace_passes(lambda: partial(module, x), nullcontext, 2, 3, on_gpu=False)
    assert [len(one.passes) for one in traced] == [3, 3]
    for one in traced:
        window = Window(one.window, [works(part, on_gpu=False) for part in one.passes])
        assert window.shares(on_gpu=False).busy > 0.8
        convolutions = [w for found in window.passes for w in found if "conv" in w.label.op]
        assert len(convolutions) == 3


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
def test_a_compiled_pass_is_attributed_and_its_modules_are_put_back(tmp_path):
    module, x = Small(), torch.randn(2, 8, 16, 16)
    settings = MeasureSettings(
        repeats=2, attentions=("flash",), runs=("eager", "compiled"), trace=tmp_path
    )
    report = characterise(module, (x,), hardware="cpu", measured=settings)
    compiled = report.measured[1]
    assert compiled.error is None and compiled.run == "compiled"
    expected = {kinds.SPATIAL, kinds.CONVOLUTION, kinds.LINEAR, kinds.GROUP_NORM}
    assert expected <= {entry.kind for entry in compiled.kinds}
    assert module._compiled_call_impl is None and module.conv._compiled_call_impl is None
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"Small-flash-eager.json.gz", "Small-flash-compiled.json.gz"}


def test_two_runs_agree_within_their_intervals():
    """Of three tries, as whatever else this machine does may fall into one run alone."""
    module, x = Small(), torch.randn(2, 8, 32, 32)
    settings = MeasureSettings(repeats=7, attentions=("flash",))

    def run():
        return characterise(module, (x,), measured=settings)

    assert any(compare_measured(run(), run())[0].agree for _ in range(3))
    slow = characterise(module, (torch.cat([x] * 16),), measured=settings)
    assert not compare_measured(run(), slow)[0].agree


def test_a_stock_pipeline_is_measured_unedited(stock_pipeline):
    pipeline, inputs = stock_pipeline
    settings = MeasureSettings(repeats=1)
    report = characterise(pipeline, inputs, hardware="cpu", measured=settings)
    flash, naive = report.measured
    assert flash.error is None and naive.error is None
    modules = {entry.module.partition(".")[0] for entry in flash.modules}
    assert modules == {"unet", "vae"}
    assert {kinds.CONVOLUTION, kinds.CROSS} <= {entry.kind for entry in flash.kinds}


def test_written_out_attention_keeps_its_dtype():
    q = torch.randn(1, 2, 64, 16, dtype=torch.bfloat16)
    attend = partial(nn.functional.scaled_dot_product_attention, q, q, q)
    with attention_kernels("naive"):
        (traced,) = trace_passes(lambda: attend, nullcontext, 1, on_gpu=False)
    products = [json.loads(bytes(one.args)) for one in traced.passes[0] if one.name == "aten::bmm"]
    assert {args["Input type"][0] for args in products} == {"c10::BFloat16"}
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


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


def test_a_profiler_that_saw_nothing_is_said():
    traced = [TracedPasses(window=(0.0, 1.0), passes=([],))]
    with pytest.raises(ConfigError, match="in every traced pass"):
        _windows(subject=Subject(name="m", prepare=lambda: print, modules={}, records=(),
                               machine=HARDWARE["cpu"]),
               settings=MeasureSettings(), traced=traced)  # fmt: skip


@pytest.mark.parametrize(("pass_s", "at_once"), [(3e-3, 7), (1e-5, 32), (0.5, 1)])
def test_short_passes_of_a_gpu_run_in_a_row(monkeypatch, pass_s, at_once):
    asked = []

    def seconds(prepare, count, on_gpu):
        asked.append(count)
        return pass_s

    monkeypatch.setattr(measure, "_seconds", seconds)
    assert measure._clock(lambda: print, 3, on_gpu=True) == ([pass_s] * 3, at_once)
    assert asked == [1, 1, at_once, at_once, at_once]
    assert measure._clock(lambda: print, 1, on_gpu=False) == ([pass_s], 1)


def test_what_is_refused():
    with pytest.raises(InputError, match="at least 1 repeat"):
        MeasureSettings(repeats=0)
    with pytest.raises(InputError, match="graphs on cuda only"):
        MeasureSettings(runs=("graphs",))
    with pytest.raises(InputError, match="eager, graphs, compiled"):
        MeasureSettings(runs=("jit",))
    with pytest.raises(InputError, match="flash, naive"):
        replace(MeasureSettings(), attentions=("paged",))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU"):
            MeasureSettings(device="cuda")


@pytest.mark.gpu
def test_on_a_gpu_kernels_take_the_clock_time():
    x = torch.randn(64, 8, 64, 64, device="cuda")
    settings = MeasureSettings(device="cuda", repeats=5, runs=("eager", "graphs"))
    report = characterise(Small().cuda(), (x,), measured=settings)
    assert len(report.measured) == 4
    for measured in report.measured:
        assert measured.error is None and 0.5 < measured.tracing_overhead < 5
        if measured.waits == "never":
            assert 0.95 < measured.attributed_share < 1.02
        shares = measured.attributed_share + measured.waiting_share
        assert shares == pytest.approx(1, abs=0.1)
        assert {kinds.SPATIAL, kinds.CONVOLUTION} <= {entry.kind for entry in measured.kinds}
        assert measured.kernels and {entry.module for entry in measured.modules} >= {"Small.conv"}
