"""Reward heads against transformers' classifiers, and through files of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ramify import ConfigError
from ramify.models.reward_head import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    RewardHead,
    load_reward_head,
    save_reward_head,
)

HIDDEN = 12


def linear(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def load(path: Path, **settings: object) -> RewardHead:
    device = torch.device("cpu")
    return load_reward_head(path, hidden_size=HIDDEN, device=device, **settings)  # type: ignore[arg-type]


def test_layers_are_torchs_own(tmp_path: Path) -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(HIDDEN, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    tensors = {f"score.{name}": t.detach() for name, t in layers.named_parameters()}
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    hidden = linear(5, HIDDEN)
    wanted = layers.double()(hidden.double())
    head = load(tmp_path, positive_label=1)
    torch.testing.assert_close(head.logits(hidden).double(), wanted, rtol=1e-5, atol=1e-5)
    values = head.values(hidden)
    torch.testing.assert_close(values.double(), wanted.softmax(-1)[:, 1], rtol=1e-5, atol=1e-6)


def test_a_head_of_one_label_is_a_sigmoid_or_the_number_itself(tmp_path: Path) -> None:
    weight, hidden = linear(1, HIDDEN), linear(4, HIDDEN)
    save_reward_head(RewardHead([(weight, None)], activation="identity"), tmp_path)
    raw = hidden @ weight[0]
    torch.testing.assert_close(load(tmp_path).values(hidden), raw)
    torch.testing.assert_close(load(tmp_path, activation="sigmoid").values(hidden), raw.sigmoid())
    (tmp_path / CONFIG_FILE).unlink()
    torch.testing.assert_close(load(tmp_path).values(hidden), raw.sigmoid())


def test_what_is_no_head_for_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected model.safetensors or"):
        load(tmp_path)
    save_file({"other": linear(2, HIDDEN)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match=r"expected a head, score.weight, got no such tensor"):
        load(tmp_path)
    save_file({"score.weight": linear(2, 9)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match=r"score.weight: expected \[labels, 12\], got \[2, 9\]"):
        load(tmp_path)
    save_file({"score.weight": linear(2, HIDDEN)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match=r"activation: .* got sigmoid of 2"):
        load(tmp_path, activation="sigmoid")
    with pytest.raises(ConfigError, match=r"positive_label: expected an int in \[0, 2\), got 2"):
        load(tmp_path, positive_label=2)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"activation": "tanh"}))
    with pytest.raises(ConfigError, match="activation: expected one of auto"):
        load(tmp_path)
