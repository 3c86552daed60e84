"""The model directory: written and read the way transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ramify.zoo.training.model import TinyLlama
from ramify.zoo.training.vocab import save_tokenizer


def save_model(model: TinyLlama, directory: Path) -> None:
    """Write weights rounded to bfloat16, configuration and tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**model.config.hf(), dtype="bfloat16", architectures=["LlamaForCausalLM"])
    with torch.device("meta"):
        shell = LlamaForCausalLM(config)
    state = {name: w.detach().to("cpu", torch.bfloat16) for name, w in model.state_dict().items()}
    shell.load_state_dict(state, assign=True, strict=True)
    directory.mkdir(parents=True, exist_ok=True)
    shell.save_pretrained(directory)
    save_tokenizer(directory)


def load_model(directory: Path, device: str) -> tuple[Any, Any]:
    """The saved model in float32 and its tokenizer, through transformers."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return model.to(device).eval(), tokenizer
