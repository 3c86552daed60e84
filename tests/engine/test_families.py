"""Every family through the whole engine: greedy tokens and log-probabilities as transformers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ramify import LLM, SamplingParams

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[type, Any]] = {
    "llama mha": (LlamaForCausalLM, LlamaConfig(**SHAPE | {"num_key_value_heads": 4})),
    "llama 3 rope": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_parameters=LLAMA3)),
    "llama tied": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=16)),
    "mistral window 8": (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=8)),
}


@pytest.mark.parametrize(("family", "config"), FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("method", ["per_branch", "flatten"])
def test_greedy_tokens_and_logprobs(
    tmp_path: Path,
    make_llm: Callable[..., LLM],
    family: type,
    config: Any,
    method: str,
) -> None:
    torch.manual_seed(0)
    model = family(config).eval()
    model.save_pretrained(tmp_path)
    prompt = [(i * 7) % 90 for i in range(23)]
    llm = make_llm(tmp_path, method=method, max_rows=9)
    params = SamplingParams(temperature=0.0, max_tokens=14, logprobs=0, prompt_logprobs=0)
    (output,) = llm.generate([prompt], params)
    branch = output.outputs[0]
    inputs = torch.tensor([prompt])
    wanted = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=14, do_sample=False
    )
    assert branch.token_ids == wanted[0, len(prompt) :].tolist()
    with torch.inference_mode():
        exact = model(wanted).logits[0].log_softmax(-1)
    assert branch.logprobs is not None and output.prompt_logprobs is not None
    found = [t.logprob for t in [*output.prompt_logprobs[1:], *branch.logprobs] if t is not None]
    best = exact[:-1].gather(1, wanted[0, 1:, None])[:, 0]
    assert found == pytest.approx(best.tolist(), abs=1e-4)


def test_a_tree_under_a_sliding_window_equals_each_branch_alone(
    tmp_path: Path, make_llm: Callable[..., LLM]
) -> None:
    torch.manual_seed(0)
    MistralForCausalLM(FAMILIES["mistral window 8"][1]).save_pretrained(tmp_path)
    params = SamplingParams(max_tokens=9)
    root = make_llm(tmp_path, method="flatten").tree(list(range(20)), seed=1)
    alone = make_llm(tmp_path, method="per_branch", prefix_cache=False)
    for parent in root.expand(3, params):
        for child in parent.expand(2, params):
            seeded = SamplingParams(max_tokens=9, seed=child.seed)
            (output,) = alone.generate([parent.path_token_ids], seeded)
            assert output.outputs[0].token_ids == child.token_ids
    root.finish()
