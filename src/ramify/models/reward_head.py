"""Reward heads: what a text is worth, read from the last hidden state behind it.

A head is linear, or layers with ReLU in between as in Qwen2.5-Math-PRM. It lies in the files of a
sequence classifier, under `score`, or in a directory of its own: `reward_head.safetensors` with
the same names, and `reward_head.json` that says how labels become a value.
Sources: process rewards after Lightman et al. 2023; names and layout of transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ramify.core.errors import ConfigError, expected_got
from ramify.core.reward import ACTIVATIONS
from ramify.models.fields import ConfigFields, read_json_object
from ramify.models.weights import list_shards

WEIGHTS_FILE, CONFIG_FILE = "reward_head.safetensors", "reward_head.json"
NAME = re.compile(r"score\.(?:(\d+)\.)?(weight|bias)")


class RewardHead:
    """Layers [out, in] with biases or None; all in float32, as a value is one number of many bits.

    Args:
        activation: sigmoid, identity or softmax; auto: sigmoid of one label, softmax of several.
        positive_label: the label of a softmax that counts; None: the last.
    Raises:
        ConfigError: the activation does not go with the number of labels.
    """

    def __init__(
        self,
        layers: list[tuple[Tensor, Tensor | None]],
        *,
        activation: str = "auto",
        positive_label: int | None = None,
    ) -> None:
        self.layers = layers
        self.num_labels = len(layers[-1][0])
        if activation == "auto":
            activation = "sigmoid" if self.num_labels == 1 else "softmax"
        if (activation == "softmax") != (self.num_labels > 1):
            wanted = "softmax of several labels, or sigmoid or identity of one"
            got = f"{activation} of {self.num_labels}"
            raise ConfigError(expected_got("activation", wanted, got))
        label = self.num_labels - 1 if positive_label is None else positive_label
        if not 0 <= label < self.num_labels:
            wanted = f"an int in [0, {self.num_labels})"
            raise ConfigError(expected_got("positive_label", wanted, label))
        self.activation, self.positive_label = activation, label

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Label logits [n, labels] float32 of hidden states [n, hidden]."""
        x = hidden.float()
        for index, (weight, bias) in enumerate(self.layers):
            x = x.relu() if index else x
            x = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        return x

    def values(self, hidden: Tensor) -> Tensor:
        """What texts are worth, [n] float32, of the hidden states [n, hidden] behind them."""
        logits = self.logits(hidden)
        if self.activation == "softmax":
            return logits.softmax(dim=-1)[:, self.positive_label]
        return logits[:, 0].sigmoid() if self.activation == "sigmoid" else logits[:, 0]


def load_reward_head(
    directory: Path,
    *,
    hidden_size: int,
    device: torch.device,
    activation: str = "auto",
    positive_label: int | None = None,
) -> RewardHead:
    """Read the head in a directory of its own, or that of a sequence classifier.

    Args:
        activation, positive_label: go before what the head's own file says.
    Raises:
        ConfigError: no head is there, or it does not fit hidden states of this size.
    """
    config, weights = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    if config.is_file():
        fields = ConfigFields(read_json_object(config), source=str(config))
        said = fields.text("activation", default="auto")
        if said not in ACTIVATIONS:
            raise fields.error("activation", f"one of {', '.join(ACTIVATIONS)}")
        activation = said if activation == "auto" else activation
        if positive_label is None and fields.has("positive_label"):
            positive_label = fields.integer("positive_label", low=0)
    files = [weights] if weights.is_file() else list(list_shards(directory)[0])
    tensors = {name: t for path in files for name, t in _read(path).items()}
    layers = [
        (weight.to(device, torch.float32), None if bias is None else bias.to(device, torch.float32))
        for weight, bias in _layers(tensors, hidden_size, str(directory))
    ]
    return RewardHead(layers, activation=activation, positive_label=positive_label)


def save_reward_head(head: RewardHead, directory: Path) -> None:
    """Write a head as a directory of its own, in float32."""
    directory.mkdir(parents=True, exist_ok=True)
    said = {"activation": head.activation, "positive_label": head.positive_label}
    (directory / CONFIG_FILE).write_text(json.dumps(said, indent=2) + "\n")
    tensors: dict[str, Tensor] = {}
    for index, (weight, bias) in enumerate(head.layers):
        name = "score" if len(head.layers) == 1 else f"score.{2 * index}"
        tensors[f"{name}.weight"] = weight.cpu().contiguous()
        if bias is not None:
            tensors[f"{name}.bias"] = bias.cpu().contiguous()
    save_file(tensors, directory / WEIGHTS_FILE)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a head among those of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if NAME.fullmatch(name)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(expected_got(str(path), "a safetensors file", error)) from error


def _layers(
    tensors: Mapping[str, Tensor], hidden_size: int, source: str
) -> list[tuple[Tensor, Tensor | None]]:
    """Weights and biases in order; raises ConfigError unless each fits the one before."""
    places = {int(match[1] or 0) for name in tensors if (match := NAME.fullmatch(name))}
    layers = []
    width = hidden_size
    for place in sorted(places):
        name = f"score.{place}" if f"score.{place}.weight" in tensors else "score"
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        if weight is None or weight.ndim != 2 or weight.shape[1] != width:
            got = "no such tensor" if weight is None else list(weight.shape)
            raise ConfigError(expected_got(f"{source}: {name}.weight", f"[labels, {width}]", got))
        width = len(weight)
        layers.append((weight, bias))
    if not layers:
        raise ConfigError(expected_got(source, "a head, score.weight", "no such tensor"))
    return layers
