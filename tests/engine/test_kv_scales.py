"""An fp8 KV pool costs little: the bundled model's perplexity, and sizes."""

from __future__ import annotations

import math

import pytest
import torch

from ramify import LLM, ConfigError
from ramify.engine.kv_scales import FP8_MAX, kv_scales, to_fp8
from ramify.models import load_model
from ramify.zoo import PROBLEMS, bundled_model_dir
from ramify.zoo.tasks import load_problems


def perplexity(llm: LLM, texts: list[tuple[str, str]]) -> float:
    logprobs = [
        logprob
        for prompt, answer in texts
        for logprob in llm.score(prompt, [answer])[0].token_logprobs
    ]
    return math.exp(-sum(token.logprob for token in logprobs) / len(logprobs))


def texts() -> list[tuple[str, str]]:
    return [
        (problem.prompt, f"{problem.answer}")
        for name in ("sort", "documents")
        for problem in load_problems(PROBLEMS[name])[:5]
    ]


def test_perplexity_of_the_bundled_model() -> None:
    pairs = texts()
    plain = perplexity(LLM("ramify-tiny", device="cpu"), pairs)
    fp8 = perplexity(LLM("ramify-tiny", device="cpu", kv_cache_dtype="fp8"), pairs)
    assert fp8 != plain, "K and V are stored in fp8"
    assert plain <= fp8 * 1.02 and fp8 <= plain * 1.05, (plain, fp8)


def test_a_token_takes_half_of_16_bit() -> None:
    sizes = {
        kind: LLM("ramify-tiny", device="cpu", dtype="bfloat16", kv_cache_dtype=kind).info()
        for kind in ("auto", "fp8")
    }
    assert 2 * sizes["fp8"]["kv_bytes_per_token"] == sizes["auto"]["kv_bytes_per_token"]
    with pytest.raises(ConfigError, match="kv_cache_dtype: expected one of auto, fp8"):
        LLM("ramify-tiny", kv_cache_dtype="fp4")
    with pytest.raises(ConfigError, match="quantization: expected none on a CPU"):
        LLM("ramify-tiny", device="cpu", quantization="fp8")


def test_scales_leave_headroom_and_large_numbers_saturate() -> None:
    model = load_model(bundled_model_dir("ramify-tiny"))
    k_scale, v_scale = kv_scales(model)
    shape = (model.config.num_layers, model.config.num_kv_heads)
    assert k_scale.shape == v_scale.shape == shape and k_scale.min() > 0 < v_scale.min()
    scale = torch.tensor([0.5, 2.0])
    heads = torch.tensor([[[1.0, -3.0], [1e6, -1e6]]])
    stored = to_fp8(heads, scale).float() * scale[:, None]
    assert torch.equal(stored, torch.tensor([[[1.0, -3.0], [2 * FP8_MAX, -2 * FP8_MAX]]]))
