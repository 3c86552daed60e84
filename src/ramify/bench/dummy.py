"""Models to measure on where none is given: real shapes, random weights, no tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ramify.core.errors import InputError, expected_got

DUMMY = "dummy"

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
_LLAMA_31: dict[str, Any] = {
    **_LLAMA,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "torch_dtype": "bfloat16",
}
CONFIGS: dict[str, dict[str, Any]] = {
    DUMMY: {
        **_LLAMA,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 4096,
        "max_position_embeddings": 8192,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    },
    f"{DUMMY}:llama-3.1-8b": {
        **_LLAMA_31,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    # sixteen of its eighty layers: what one GPU holds beside a KV pool, and two share
    f"{DUMMY}:llama-3.1-70b-16l": {
        **_LLAMA_31,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 16,
        "num_attention_heads": 64,
    },
}
"""Name to config.json. Rotation is Llama 3.1's without its long-context scaling."""


def is_dummy(name: str) -> bool:
    """Whether a model's name asks for one of these, known or not."""
    return name == DUMMY or name.startswith(f"{DUMMY}:")


def describe(name: str) -> str:
    """What rows and tables call such a model."""
    config = _config(name)
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    heads = f"{config['num_attention_heads']}/{config['num_key_value_heads']}"
    shape = f"{layers} layers, hidden {hidden}, heads {heads} of {config['head_dim']}"
    return f"{name} ({shape}), random weights"


def write_dummy_model(directory: Path, name: str = DUMMY) -> Path:
    """Write its config.json; `load_format="dummy"` makes the weights. Returns the directory.

    Raises InputError when there is no dummy of that name.
    """
    text = json.dumps(_config(name), indent=2)
    (directory / "config.json").write_text(text, encoding="utf-8")
    return directory


def _config(name: str) -> dict[str, Any]:
    if name not in CONFIGS:
        raise InputError(expected_got("model", f"one of {', '.join(CONFIGS)}", repr(name)))
    return CONFIGS[name]
