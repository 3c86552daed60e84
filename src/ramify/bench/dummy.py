"""A mid-sized Llama to measure on where no model is given: real shapes, random weights."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}
NAME = "dummy Llama (8 layers, hidden 512, 8 heads of 64), random weights"


def write_dummy_model(directory: Path) -> Path:
    """Write its config.json; `load_format="dummy"` makes the weights. Returns the directory."""
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2), encoding="utf-8")
    return directory
