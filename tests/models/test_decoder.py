"""Logits and greedy tokens of every family against transformers, whatever the chunking."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from ramify.models import Decoder, load_model

TOLERANCE = 1e-4
PROMPT_LEN = 37
VOCAB_SIZE = 160
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _small(config: type[PreTrainedConfig], **changes: Any) -> PreTrainedConfig:
    return config(**(SMALL | changes))


def _rope(**settings: Any) -> dict[str, Any]:
    return {"rope_theta": 10000.0} | settings


CASES: dict[str, PreTrainedConfig] = {
    "llama2_mha": _small(LlamaConfig, num_key_value_heads=4),
    "llama31_llama3_rope": _small(LlamaConfig, rope_parameters=LLAMA3_ROPE),
    "llama32_tied": _small(LlamaConfig, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "llama_all_biases": _small(LlamaConfig, attention_bias=True, mlp_bias=True),
    "llama_head_dim": _small(LlamaConfig, head_dim=32, num_key_value_heads=1),
    "llama_linear_rope": _small(LlamaConfig, rope_parameters=_rope(rope_type="linear", factor=2.0)),
    "llama_dynamic_rope": _small(
        LlamaConfig, rope_parameters=_rope(rope_type="dynamic", factor=2.0)
    ),
    "llama_yarn_rope": _small(LlamaConfig, rope_parameters=YARN_ROPE),
    "qwen2_biases": _small(Qwen2Config),
    "qwen2_upper_layers_slide": _small(
        Qwen2Config, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "qwen2_layer_types": _small(
        Qwen2Config,
        use_sliding_window=True,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "qwen25_yarn_tied": _small(Qwen2Config, rope_parameters=YARN_ROPE, tie_word_embeddings=True),
    "qwen3_qk_norm": _small(Qwen3Config, head_dim=24),
    "qwen3_biases_sliding": _small(
        Qwen3Config,
        head_dim=32,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=2,
    ),
    "mistral_sliding": _small(MistralConfig, sliding_window=7, rope_parameters=_rope()),
    "mistral_full": _small(MistralConfig, sliding_window=None, head_dim=24),
}


def randomise(model: PreTrainedModel) -> None:
    """Weights, biases and norms all random, large enough that any slip moves the logits."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = name.endswith("norm.weight")
            parameter.copy_(1.0 + 0.2 * noise if is_norm else 0.15 * noise)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Case name -> (transformers' model, its directory, our decoder), built once each."""

    @cache
    def build(name: str) -> tuple[PreTrainedModel, Path, Decoder]:
        model = AutoModelForCausalLM.from_config(
            CASES[name], attn_implementation="eager", dtype=torch.float32
        ).eval()
        randomise(model)
        path = tmp_path_factory.mktemp(name)
        model.save_pretrained(path)
        return model, path, load_model(path, dtype=torch.float32, device="cpu")

    return build


def prompt(seed: int = 5, length: int = PROMPT_LEN) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCAB_SIZE, (length,), generator=generator)


def run_in_chunks(decoder: Decoder, attend: Any, tokens: Tensor, chunk: int) -> Tensor:
    """Logits [T, vocab] of one sequence fed `chunk` rows at a time."""
    logits = []
    for positions in torch.arange(len(tokens)).split(chunk):
        attend.begin(torch.zeros_like(positions), positions)
        logits.append(decoder.forward(tokens[positions], positions, attend))
    return torch.cat(logits)


@pytest.mark.parametrize("chunk", [PROMPT_LEN, 1, 5, 16], ids=lambda chunk: f"chunk{chunk}")
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(pair: Any, naive_attend: Any, name: str, chunk: int) -> None:
    model, _, decoder = pair(name)
    tokens = prompt()
    got = run_in_chunks(decoder, naive_attend(), tokens, chunk)
    with torch.no_grad():
        want = model(tokens[None]).logits[0]
    assert got.dtype == torch.float32
    assert want.std() > 0.5  # else the tolerance would mean little
    assert (got - want).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens_equal_transformers(pair: Any, naive_attend: Any, name: str) -> None:
    model, _, decoder = pair(name)
    tokens = prompt(seed=6, length=11)
    num_new = 14
    want = model.generate(
        tokens[None],
        attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=num_new,
        eos_token_id=None,
        pad_token_id=0,
    )[0]
    attend = naive_attend()
    last = run_in_chunks(decoder, attend, tokens, chunk=4)[-1]
    while len(tokens) < len(want):
        tokens = torch.cat((tokens, last.argmax()[None]))
        position = torch.tensor([len(tokens) - 1])
        attend.begin(torch.zeros(1, dtype=torch.int64), position)
        last = decoder.forward(tokens[-1:], position, attend)[0]
    assert tokens.tolist() == want.tolist()


@pytest.mark.parametrize("name", ["llama31_llama3_rope", "qwen2_upper_layers_slide"])
def test_rows_of_two_sequences_share_a_step(pair: Any, naive_attend: Any, name: str) -> None:
    model, _, decoder = pair(name)
    short, long = prompt(seed=7, length=9), prompt(seed=8, length=20)
    tokens = torch.cat((short, long))
    positions = torch.cat((torch.arange(9), torch.arange(20)))
    sequence = torch.tensor([0] * 9 + [1] * 20)
    attend = naive_attend()
    # rows in any order: only positions and the engine's attention say where they belong
    shuffled = torch.randperm(29, generator=torch.Generator().manual_seed(1))
    attend.begin(sequence[shuffled], positions[shuffled])
    got = decoder.forward(tokens[shuffled], positions[shuffled], attend)
    with torch.no_grad():
        want = torch.cat((model(short[None]).logits[0], model(long[None]).logits[0]))
    assert (got - want[shuffled]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", ["llama2_mha", "llama_all_biases", "llama32_tied"])
def test_logit_rows_select_and_order(pair: Any, naive_attend: Any, name: str) -> None:
    _, _, decoder = pair(name)
    tokens, positions = prompt(), torch.arange(PROMPT_LEN)
    every = run_in_chunks(decoder, naive_attend(), tokens, PROMPT_LEN)
    for rows in ([PROMPT_LEN - 1], [20, 3, 3], list(range(PROMPT_LEN)), []):
        attend = naive_attend()
        attend.begin(torch.zeros_like(positions), positions)
        wanted = torch.tensor(rows, dtype=torch.int64)
        got = decoder.forward(tokens, positions, attend, wanted)
        assert got.shape == (len(rows), VOCAB_SIZE)
        torch.testing.assert_close(got, every[wanted], atol=1e-5, rtol=0.0)
        # keys and values of every row are stored all the same
        assert all(len(kept[0][0]) == PROMPT_LEN for kept in attend.layers.values())


def test_windows_reach_the_engine_per_layer(pair: Any) -> None:
    seen: list[tuple[int, int | None]] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        seen.append((layer, window))
        assert q.shape == (1, 4, 16)
        assert k.shape == v.shape == (1, 2, 16)
        return q

    _, _, decoder = pair("qwen2_layer_types")
    decoder.forward(torch.tensor([3]), torch.tensor([0]), attend)
    assert seen == [(0, 5), (1, None), (2, 5)]


@pytest.mark.parametrize("name", ["llama31_llama3_rope", "qwen3_qk_norm", "qwen2_biases"])
def test_bfloat16_errs_no_more_than_transformers(pair: Any, naive_attend: Any, name: str) -> None:
    model, path, _ = pair(name)
    tokens = prompt()
    half_decoder = load_model(path, dtype="bfloat16", device="cpu")
    half_model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, attn_implementation="eager"
    )
    got = run_in_chunks(half_decoder, naive_attend(), tokens, 8)
    with torch.no_grad():
        exact = model(tokens[None]).logits[0]
        naive = half_model(tokens[None]).logits[0].float()
    assert got.dtype == torch.float32
    assert (got - exact).abs().max() <= 2 * (naive - exact).abs().max()


def test_parameters_count_a_tied_embedding_once(pair: Any) -> None:
    for name in ("llama32_tied", "llama31_llama3_rope", "qwen3_qk_norm"):
        model, _, decoder = pair(name)
        got = sum(p.numel() for n, p in decoder.named_parameters() if not n.endswith("qk_norm"))
        want = sum(p.numel() for n, p in model.named_parameters() if "self_attn.q_n" not in n)
        want -= sum(p.numel() for n, p in model.named_parameters() if "self_attn.k_n" in n)
        assert got == want
