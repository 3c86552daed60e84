"""Models of transformers, modules and pipelines of the user's own, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from ramify.core.errors import ConfigError, InputError
from ramify.profile.model import characterise
from ramify.profile.operators import kinds
from ramify.profile.report import covered_share, flops_of
from ramify.profile.sequence import length_trace
from ramify.profile.totals import flash_speedup, intensity, num_params, totals


def test_llama_reads_a_prompt_and_then_its_weights_once_a_token():
    report = characterise("llama_7b", sizes={"prompt_tokens": 1000, "new_tokens": 100})
    prefill, decode = report.components
    params = 32000 * 4096 * 2 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    assert prefill.num_params == params == num_params(report)
    products = 2 * 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    head = 2 * 32000 * 4096
    # some versions of transformers make the angles of RoPE in a product too
    angles = 2 * 1000 * 64
    expected = 1000 * (products + head) + 32 * 4 * 1000**2 * 4096
    assert flops_of(prefill) - expected in (0, angles)
    assert flops_of(decode) - (products + head + 32 * 4 * 1051 * 4096) in (0, angles / 1000)
    assert (prefill.calls, decode.calls) == (1, 100)
    assert {call.kind for call in prefill.attention} == {kinds.PREFILL}
    assert {call.kind for call in decode.attention} == {kinds.DECODE}
    assert intensity(decode) == pytest.approx(1, abs=0.1) and intensity(prefill) > 900
    assert covered_share(report) == 1.0


def test_an_encoder_decoder_makes_its_image_token_by_token():
    report = characterise("parti_20b", sizes={"image_tokens": 64}, only=["decode"])
    (part,) = report.components
    assert part.num_params == pytest.approx(20e9, rel=0.03)
    assert {call.kind for call in part.attention} == {kinds.DECODE, kinds.CROSS}
    assert {call.kv_len for call in part.attention if call.kind == kinds.DECODE} == {33}
    assert part.calls == 64 and part.batch == 2


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x, *, scale=1.0):
        q, k, v = self.proj(x).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed) * scale


def test_a_module_of_the_users_own_runs_as_it_is():
    module = Own()
    report = characterise(module, {"x": torch.ones(2, 4, 10, 8), "scale": 2.0}, hardware="a100")
    (part,) = report.components
    assert flops_of(part) == 2 * 80 * 8 * 32 + 4 * 8 * 10 * 10 * 8
    assert length_trace(part) == [10] and part.num_params == 8 * 24 + 24 + 8 * 8 + 8
    assert flash_speedup([part]) > 1
    assert all(parameter.requires_grad for parameter in module.parameters())


class Pipeline:
    """A pipeline as diffusers has them: modules in `components`, called with a prompt."""

    def __init__(self):
        self.unet, self.vae = Own(), nn.Conv2d(4, 3, 1)
        self.components = {"unet": self.unet, "vae": self.vae, "scheduler": object()}

    def __call__(self, steps):
        x = torch.ones(1, 4, 10, 8)
        for _ in range(steps):
            x = x - self.unet(x)
        return self.vae(x)


def test_a_pipeline_is_told_apart_by_component():
    report = characterise(Pipeline(), {"steps": 3})
    names = [part.name for part in report.components]
    assert names == ["unet", "vae", "between components"]
    unet, vae, rest = report.components
    assert flops_of(vae) == 2 * 80 * 4 * 3
    assert len(unet.attention) == 3
    assert set(totals([rest])) == {kinds.ELEMENTWISE}


def test_a_stock_pipeline_of_diffusers(stock_pipeline):
    pipeline, inputs = stock_pipeline
    unet, text = pipeline.unet, inputs["prompt_embeds"]
    report = characterise(pipeline, inputs)
    part = report.component("unet")
    sample = {"sample": torch.zeros(2, 4, 8, 8), "timestep": 1}
    alone = characterise(unet, {**sample, "encoder_hidden_states": text.expand(2, -1, -1)}).main
    assert flops_of(part) == 3 * flops_of(alone) and len(part.attention) == 3 * len(alone.attention)
    assert flops_of(report.component("vae")) > 0 and covered_share(report) == 1.0


def test_directories_of_both_libraries(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = characterise(tmp_path, sizes={"prompt_tokens": 32, "new_tokens": 8})
    assert [part.name for part in report.components] == ["prefill", "decode"]
    assert {call.kv_len for call in report.component("decode").attention} == {37}
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ConfigError, match="ForCausalLM"):
        characterise(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="a config in JSON"):
        characterise(tmp_path)


def test_a_pipeline_directory(tmp_path):
    pytest.importorskip("diffusers")
    (tmp_path / "unet").mkdir()
    index = {"_class_name": "P", "unet": ["diffusers", "UNet2DConditionModel"], "x": ["d", "Y"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    config = {"_class_name": "UNet2DConditionModel", "sample_size": 32, "cross_attention_dim": 768}
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    (part,) = characterise(tmp_path, steps=7).components
    assert flops_of(part) / 1e12 == pytest.approx(0.360, rel=0.01)
    assert part.calls == 7 and part.batch == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "lama_7b"}, "did you mean llama_7b"),
        ({"target": "llama_7b", "hardware": "abacus"}, "hardware"),
        ({"target": "llama_7b", "sizes": {"height": 3}}, "prompt_tokens"),
        ({"target": "llama_7b", "batch": 0}, "at least 1"),
        ({"target": "llama_7b", "only": ["vae"]}, "prefill, decode"),
        ({"target": 3}, "a module or a pipeline"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        characterise(**arguments)


def test_sizes_that_a_model_cannot_take():
    pytest.importorskip("diffusers")
    with pytest.raises(ConfigError, match="without rest"):
        characterise("sd15", sizes={"side": 500}, only=["denoiser"])
    with pytest.raises(ConfigError, match="a pass of transformers.CLIPTextModel"):
        characterise("sd15", sizes={"text_tokens": 78}, only=["text encoder"])


def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(InputError, match=r"ramify\[profile\]"):
        characterise("sd15", only=["denoiser"])
