"""A model in parts: what is loaded where, and the logits of all ranks against transformers'."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen3Config

from ramify.core.errors import ConfigError
from ramify.engine.kv_scales import kv_scales
from ramify.models import Shard, load_model, read_config, weights
from ramify.models.checkpoint import decoder_slots

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "initializer_range": 0.2,
}
CASES: dict[str, Any] = {
    # an odd vocabulary: every rank has the whole head
    "biases": LlamaConfig(**SHAPE, vocab_size=97, attention_bias=True, mlp_bias=True),
    "tied": LlamaConfig(**SHAPE, vocab_size=96, tie_word_embeddings=True),
    "qk norm": Qwen3Config(**SHAPE, vocab_size=96),
}
PROGRAM = Path(__file__).with_name("shard_rank.py")
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, PreTrainedModel]:
    """Directories and transformers' models of them; norms and biases are random too."""
    made = {}
    generator = torch.Generator().manual_seed(2)
    for name, config in CASES.items():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.data.add_(0.3 * torch.randn(weight.shape, generator=generator))
        path = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(path)
        made[path] = model
    return made


def few_rows(count: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + 5, count)) for begin in range(0, count, 5)]


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
@pytest.mark.parametrize("size", [2, 4])
def test_parts_make_up_the_whole(
    models: dict[Path, PreTrainedModel],
    size: int,
    load_format: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # as on a GPU, where random rows are drawn a few at a time
    monkeypatch.setattr(weights, "_parts", lambda shape, _: few_rows(shape[0]))
    for path in models:
        whole = decoder_slots(load_model(path, load_format=load_format))
        parts = [
            decoder_slots(load_model(path, load_format=load_format, shard=Shard(rank, size)))
            for rank in range(size)
        ]
        num_cut = 0
        for name, slot in whole.items():
            axis = parts[0][name].axis
            targets = [part[name].target for part in parts]
            if axis is None or targets[0].shape == slot.target.shape:
                # the q norm is kept once per head
                assert all(torch.equal(t, slot.target[: len(t)]) for t in targets), name
                continue
            num_cut += 1
            assert torch.equal(torch.cat(targets, axis), slot.target), name
        assert num_cut >= 2 * 7  # the matrices of the layers


def run_ranks(size: int, models: list[Path], tmp_path: Path) -> list[dict[str, dict[str, Tensor]]]:
    outs = [tmp_path / f"{rank}.pt" for rank in range(size)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(rank), str(size), tmp_path / "store", out, *models],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    for process in running:
        _, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr[-3000:]
    return [torch.load(out) for out in outs]


def test_every_rank_has_the_same_logits_and_they_are_right(
    models: dict[Path, PreTrainedModel], tmp_path: Path
) -> None:
    pytest.importorskip("triton")
    results = run_ranks(2, list(models), tmp_path)
    for path, model in models.items():
        with torch.inference_mode():
            exact = model.double()(TOKENS).logits[0].float()
        first = results[0][path.name]
        for kind, want in (("plain", exact), ("fused", exact), ("kept", exact[[6, 0]])):
            torch.testing.assert_close(first[kind], want, rtol=0.0, atol=1e-4)
            # ranks draw tokens on their own: they must agree to the bit
            assert all(torch.equal(result[path.name][kind], first[kind]) for result in results)
        scales = torch.stack(kv_scales(load_model(path)))  # [2, layers, Hkv]
        both = torch.cat([result[path.name]["scales"] for result in results], dim=2)
        torch.testing.assert_close(both, scales)


def test_heads_and_columns_must_divide(models: dict[Path, PreTrainedModel]) -> None:
    config = read_config(next(iter(models)))
    cut = Shard(1, 4).cut(config)
    assert (cut.num_q_heads, cut.num_kv_heads, cut.intermediate_size) == (2, 1, 24)
    with pytest.raises(ConfigError, match="tensor_parallel_size.*num_kv_heads, 4, got 3"):
        Shard(0, 3).cut(config)
    with pytest.raises(ConfigError, match="tensor_parallel_size.*num_kv_heads, 4, got 8"):
        Shard(0, 8).cut(config)
