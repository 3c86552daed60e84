"""Tiny reward models on disk, and transformers' own copies of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, Qwen2Config

from ramify.testing.models import save_byte_tokenizer


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """Two labels over the vocabulary of `tiny`, of another family and shape."""
    path = tmp_path_factory.mktemp("classifier")
    return path, _save(path, vocab_size=96, num_labels=2)


@pytest.fixture(scope="session")
def byte_classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """One label, with a tokenizer of bytes."""
    path = tmp_path_factory.mktemp("byte-classifier")
    save_byte_tokenizer(path)
    return path, _save(path, vocab_size=300, num_labels=1)


def _save(path: Path, vocab_size: int, num_labels: int) -> PreTrainedModel:
    torch.manual_seed(num_labels)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4608,
        initializer_range=0.15,
        num_labels=num_labels,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(path)
    return model
