"""Small variants of what the suite measures run for real: same classes, same calls, on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ramify.profile import MeasureSettings, model
from ramify.profile.model import characterise
from ramify.profile.presets.build import fill_weights
from ramify.profile.presets.inputs import make_inputs
from ramify.profile.presets.preset import load_preset
from ramify.profile.report import measurements
from ramify.profile.suite import MEASURED

UNET = {"block_out_channels": [32, 32, 32, 32], "cross_attention_dim": 32, "layers_per_block": 1}
CLIP = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
T5 = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 1}
VAE = {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}
UVIT = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96,
    "encoder_hidden_size": 32, "block_out_channels": 64, "cond_embed_dim": 32,
    "block_num_heads": 2, "in_channels": 64,
}  # fmt: skip
LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip
BY_CLASS = {
    "CLIPTextModel": CLIP,
    "CLIPTextModelWithProjection": CLIP | {"projection_dim": 32},
    "T5EncoderModel": T5,
    "T5ForConditionalGeneration": T5 | {"num_decoder_layers": 2},
    "UNet2DConditionModel": UNET,
    "UNet3DConditionModel": UNET | {"attention_head_dim": 8},
    "AutoencoderKL": VAE,
    "UVit2DModel": UVIT,
    "LlamaForCausalLM": LLAMA,
    "MaskedVideoTransformer": {"width": 32, "layers": 1, "heads": 2},
    "VideoTokenDecoder": {"width": 32, "layers": 1, "heads": 2},
}
SIZES = {
    "height": 64, "width": 64, "frames": 3, "text_tokens": 5, "image_tokens": 8,
    "prompt_tokens": 9, "new_tokens": 4,
}  # fmt: skip
PIXELS = {"attention_head_dim": 8, "addition_embed_type_num_heads": 2}
BY_PRESET = {
    "if_xl": {"UNet2DConditionModel": PIXELS},
    "sr_256": {"UNet2DConditionModel": PIXELS},
    "sdxl": {
        "UNet2DConditionModel": {
            "block_out_channels": [32, 32, 32],
            "transformer_layers_per_block": 1,
        }
    },
}
NAMES = sorted({entry.target for entry in MEASURED if entry.target != "ramify_step"})


def small(name):
    """The preset with every module cut to a few channels and layers."""
    preset = load_preset(name)
    parts = []
    for part in preset.components:
        short = part.class_path.rpartition(".")[2]
        config = {**part.config, **BY_CLASS[short], **BY_PRESET.get(name, {}).get(short, {})}
        parts.append(replace(part, config={key: v for key, v in config.items() if v is not None}))
    sizes = {key: SIZES.get(key, size) for key, size in preset.sizes.items()}
    return replace(preset, components=tuple(parts), sizes=sizes)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_for_real(name, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(model, "load_preset", small)
    settings = MeasureSettings(repeats=1, attentions=("flash",))
    report = characterise(name, hardware="cpu", measured=settings)
    found = measurements(report)
    assert len(found) == len(report.components)
    for part_name, (part,), measured in found:
        assert measured.error is None, f"{part_name}: {measured.error}"
        recorded = {group.kind for group in part.groups if group.flops}
        assert recorded <= {entry.kind for entry in measured.kinds}


def test_weights_and_inputs_do_not_touch_torchs_own_random_numbers():
    state = torch.random.get_rng_state()
    module = fill_weights(torch.nn.Linear(4, 4, device="meta"), "cpu")
    make_inputs({"x": [2, 4], "ids": {"shape": [3], "dtype": "int64"}}, {}, module, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0 < module.weight.std() < 0.1
