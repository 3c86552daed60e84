"""Medusa heads against the paper's formula in float64, through their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from ramify import ConfigError
from ramify.models.medusa import CONFIG_FILE, WEIGHTS_FILE, MedusaHeads, load_medusa, save_medusa

HIDDEN, VOCAB = 12, 20


def random_heads(num_heads: int = 3, num_blocks: int = 2) -> MedusaHeads:
    torch.manual_seed(0)
    shape = (num_heads, num_blocks)
    weight, bias = torch.randn(*shape, HIDDEN, HIDDEN), torch.randn(*shape, 1, HIDDEN)
    return MedusaHeads(weight, bias, torch.randn(num_heads, HIDDEN, VOCAB))


def load(path: Path, hidden: int = HIDDEN, vocab: int = VOCAB) -> MedusaHeads:
    sizes = {"hidden_size": hidden, "vocab_size": vocab}
    return load_medusa(path, **sizes, dtype=torch.float32, device=torch.device("cpu"))


def test_heads_are_the_papers_formula_on_the_files_tensors(tmp_path: Path) -> None:
    save_medusa(random_heads(), tmp_path, torch.float32)
    hidden = torch.randn(5, HIDDEN)
    got = load(tmp_path)(hidden)
    file = {name: t.double() for name, t in load_file(tmp_path / WEIGHTS_FILE).items()}
    for k in range(3):
        x = hidden.double()
        for j in range(2):
            name = f"{k}.{j}.linear"
            x = x + F.silu(F.linear(x, file[f"{name}.weight"], file[f"{name}.bias"]))
        wanted = F.linear(x, file[f"{k}.2.weight"])
        torch.testing.assert_close(got[k].double(), wanted, rtol=1e-5, atol=1e-5)


def test_heads_begin_as_the_models_own() -> None:
    lm_head, hidden = torch.randn(HIDDEN, VOCAB), torch.randn(4, HIDDEN)
    logits = MedusaHeads.beside(lm_head, num_heads=2)(hidden)
    torch.testing.assert_close(logits, (hidden @ lm_head).expand(2, -1, -1))


def test_files_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    save_medusa(random_heads(), tmp_path)
    with pytest.raises(ConfigError, match=r"0.0.linear.weight: expected shape \[8, 8\], got \(12"):
        load(tmp_path, hidden=8)
    with pytest.raises(ConfigError, match=r"0.2.weight: expected shape \[21, 12\]"):
        load(tmp_path, vocab=21)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config | {"medusa_num_heads": 4}))
    with pytest.raises(ConfigError, match=r"3.0.linear.weight: .* no such tensor"):
        load(tmp_path)
    save_file({}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match="no such tensor"):
        load(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"no")
    with pytest.raises(ConfigError, match="expected a safetensors file"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="a readable file"):
        load(tmp_path / "nowhere")
