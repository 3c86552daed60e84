"""Names, devices, dtypes and tokenizers: what resolves, and what the refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from ramify.core.errors import ConfigError
from ramify.models import load_model, load_tokenizer, resolve_model_dir
from ramify.models.config import read_config
from ramify.models.loader import resolve_dtype


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert resolve_model_dir(tmp_path) == tmp_path
    assert resolve_model_dir(str(tmp_path)) == tmp_path


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").touch()
    with pytest.raises(ConfigError, match=r"model: expected a directory or a hub id, got the file"):
        resolve_model_dir(tmp_path / "weights.gguf")


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "a/b/c", "../up", "", "two words"])
def test_what_cannot_be_a_hub_id_is_refused_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", _unreachable)
    with pytest.raises(ConfigError, match="model: expected an existing directory or a hub id, got"):
        resolve_model_dir(name)


def _unreachable(*_: Any, **__: Any) -> str:
    raise AssertionError("the hub must not be asked")


def test_hub_id_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        ConfigError, match=r"model: expected .* got 'someone/some-model', .* could not be fetched"
    ):
        resolve_model_dir("someone/some-model")


def test_hub_id_is_fetched_without_pickled_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def fetch(repo_id: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo_id, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert resolve_model_dir("someone/some-model") == tmp_path / "snapshot"
    [(repo_id, patterns)] = asked
    assert repo_id == "someone/some-model"
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith((".bin", ".pth", ".pt")) for pattern in patterns)


def test_load_format_is_checked(pristine_llama: Path) -> None:
    bad: Any = "gguf"
    with pytest.raises(
        ConfigError, match="load_format: expected one of auto, safetensors, dummy, got 'gguf'"
    ):
        load_model(pristine_llama, load_format=bad)


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_device_is_checked(pristine_llama: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device: expected a device of this machine.*{device}"):
        load_model(pristine_llama, device=device)


@pytest.mark.parametrize("dtype", ["int8", torch.float64, "float8"])
def test_dtype_is_checked(pristine_llama: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match="dtype: expected auto or one of float32, float16, bfl"):
        load_model(pristine_llama, dtype=dtype)


def test_auto_dtype(pristine_llama: Path) -> None:
    config = read_config(pristine_llama)
    assert config.dtype == "float32"
    assert resolve_dtype("auto", config, torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", config, torch.device("cuda")) == torch.float32
    assert resolve_dtype("bfloat16", config, torch.device("cpu")) == torch.bfloat16
    assert resolve_dtype(torch.float16, config, torch.device("cpu")) == torch.float16
    assert load_model(pristine_llama, dtype="bfloat16").embedding.dtype == torch.bfloat16


def test_decoder_needs_no_gradients(pristine_llama: Path) -> None:
    decoder = load_model(pristine_llama)
    assert not decoder.training
    assert not any(parameter.requires_grad for parameter in decoder.parameters())


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    words = Tokenizer(WordLevel({"<unk>": 0, "a": 1, "tree": 2, "grows": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    fast.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def test_tokenizer_of_a_directory(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    assert tokenizer is not None
    assert tokenizer.encode("a tree grows tall") == [1, 2, 3, 0]


def test_no_tokenizer_files_is_none(pristine_llama: Path) -> None:
    assert load_tokenizer(pristine_llama) is None


def test_broken_tokenizer_is_named(tokenizer_dir: Path) -> None:
    (tokenizer_dir / "tokenizer.json").write_text('{"version": "1.0", "model": {}')
    with pytest.raises(ConfigError, match="words: expected readable tokenizer files, got"):
        load_tokenizer(tokenizer_dir)
