"""Medusa heads: several small heads on the last hidden state, each for a token further ahead.

Where the model's own head tells the next token, head k tells the one k places after it. A head is
residual blocks, x + silu(x @ W + b), and an output of its own.
Source: Medusa-1 (Cai et al. 2024), in the file layout of its released heads.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ramify.core.errors import ConfigError, expected_got
from ramify.models.fields import ConfigFields, read_json_object

WEIGHTS_FILE = "medusa_lm_head.safetensors"
CONFIG_FILE = "config.json"


class MedusaHeads(nn.Module):
    """K heads of L blocks each, all computed at once.

    Attributes:
        weight: [K, L, hidden, hidden], right factors of the blocks' products.
        bias: [K, L, 1, hidden].
        output: [K, hidden, vocab].
    """

    def __init__(self, weight: Tensor, bias: Tensor, output: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.output = map(nn.Parameter, (weight, bias, output))

    @classmethod
    def beside(cls, lm_head: Tensor, *, num_heads: int, num_blocks: int = 1) -> MedusaHeads:
        """Untrained heads that say what the model's head [hidden, vocab] says of the next token."""
        hidden = lm_head.shape[0]
        weight = lm_head.new_zeros(num_heads, num_blocks, hidden, hidden)
        bias = lm_head.new_zeros(num_heads, num_blocks, 1, hidden)
        return cls(weight, bias, lm_head.expand(num_heads, -1, -1).clone())

    @property
    def num_heads(self) -> int:
        """Tokens after the next one that are guessed."""
        return self.weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states that the heads read."""
        return self.weight.shape[-1]

    @property
    def vocab_size(self) -> int:
        """Tokens that a head chooses from."""
        return self.output.shape[-1]

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [K, n, vocab] of hidden states [n, hidden]; all in the heads' dtype."""
        x = hidden.expand(self.num_heads, -1, -1)
        for weight, bias in zip(self.weight.unbind(1), self.bias.unbind(1), strict=True):
            x = x + F.silu(torch.baddbmm(bias, x, weight))
        return x @ self.output


def save_medusa(heads: MedusaHeads, directory: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write heads as a directory of `config.json` and a safetensors file."""
    directory.mkdir(parents=True, exist_ok=True)
    num_blocks = heads.weight.shape[1]
    config = {
        "medusa_num_heads": heads.num_heads,
        "medusa_num_layers": num_blocks,
        "hidden_size": heads.hidden_size,
        "vocab_size": heads.vocab_size,
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    tensors: dict[str, Tensor] = {}
    for k in range(heads.num_heads):
        for j in range(num_blocks):
            tensors[f"{k}.{j}.linear.weight"] = heads.weight[k, j].t()
            tensors[f"{k}.{j}.linear.bias"] = heads.bias[k, j, 0]
        tensors[f"{k}.{num_blocks}.weight"] = heads.output[k].t()
    plain = {name: t.detach().to("cpu", dtype).contiguous() for name, t in tensors.items()}
    save_file(plain, directory / WEIGHTS_FILE)


def load_medusa(
    directory: Path, *, hidden_size: int, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> MedusaHeads:
    """Read heads for a model with these sizes.

    Raises:
        ConfigError: a file or a tensor is missing, or has another shape than the model's.
    """
    path = directory / CONFIG_FILE
    fields = ConfigFields(read_json_object(path), source=str(path))
    count, num_blocks = fields.integer("medusa_num_heads"), fields.integer("medusa_num_layers")
    path = directory / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(expected_got(str(path), "a safetensors file", error)) from error

    def take(name: str, *shape: int) -> Tensor:
        got = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        if got != shape:
            raise ConfigError(expected_got(f"{path}: {name}", f"shape {list(shape)}", got))
        return tensors[name].to(device, dtype)

    square, rows = (hidden_size, hidden_size), (vocab_size, hidden_size)
    places = [(k, j) for k in range(count) for j in range(num_blocks)]
    weight = torch.stack([take(f"{k}.{j}.linear.weight", *square).t() for k, j in places])
    bias = torch.stack([take(f"{k}.{j}.linear.bias", hidden_size) for k, j in places])
    output = torch.stack([take(f"{k}.{num_blocks}.weight", *rows).t() for k in range(count)])
    shape = (count, num_blocks)
    heads = MedusaHeads(weight.unflatten(0, shape), bias.unflatten(0, shape)[:, :, None], output)
    return heads.requires_grad_(False)
