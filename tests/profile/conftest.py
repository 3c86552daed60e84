"""A pipeline as diffusers ships it, small and with random weights."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def stock_pipeline():
    """The object and what it is called with."""
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        diffusers.AutoencoderKL(block_out_channels=(32,)), None, None, unet,
        diffusers.DDIMScheduler(steps_offset=1, clip_sample=False), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    text = torch.zeros(1, 7, 16)
    inputs = {"prompt_embeds": text, "negative_prompt_embeds": text, "height": 8, "width": 8}
    return pipeline, {**inputs, "num_inference_steps": 3, "output_type": "pt"}
