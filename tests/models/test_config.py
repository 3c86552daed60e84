"""config.json: what is read, and a ConfigError with field, expectation and value for the rest."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from ramify.core.errors import ConfigError
from ramify.models import ModelConfig, read_config
from ramify.models.config import parse_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}
QWEN2 = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = LLAMA | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
ABSENT = object()


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (base | changes).items() if value is not ABSENT}


def test_llama_fields() -> None:
    config = parse_config(LLAMA)
    assert (config.num_layers, config.num_q_heads, config.num_kv_heads) == (2, 4, 2)
    assert (config.head_dim, config.hidden_size, config.intermediate_size) == (8, 32, 48)
    assert (config.vocab_size, config.max_positions, config.norm_eps) == (96, 64, 1e-5)
    assert (config.eos_token_ids, config.is_tied, config.dtype) == ((2,), False, None)
    assert config.traits.layer_windows == (None, None)


def test_early_llama_without_kv_heads_is_mha() -> None:
    assert parse_config(changed(LLAMA, {"num_key_value_heads": ABSENT})).num_kv_heads == 4
    assert parse_config(changed(QWEN2, {"num_key_value_heads": None})).num_kv_heads == 4


def test_qwen3_head_dim_is_its_own() -> None:
    assert parse_config(QWEN3).head_dim == 128
    assert parse_config(QWEN3 | {"head_dim": 16}).head_dim == 16


@pytest.mark.parametrize(
    ("base", "changes", "windows"),
    [
        (LLAMA, {"sliding_window": 4}, (None, None)),
        (MISTRAL, {}, (4096, 4096)),
        (MISTRAL, {"sliding_window": 4}, (4, 4)),
        (MISTRAL, {"sliding_window": None}, (None, None)),
        (QWEN2, {"sliding_window": 4}, (None, None)),
        (QWEN2, {"sliding_window": 4, "use_sliding_window": True}, (None, None)),
        (
            QWEN2,
            {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
            (None, 4),
        ),
        (QWEN3, {"use_sliding_window": True, "max_window_layers": 0}, (4096, 4096)),
        (
            QWEN3,
            {
                "sliding_window": 4,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            (4, None),
        ),
    ],
)
def test_layer_windows(
    base: dict[str, Any], changes: dict[str, Any], windows: tuple[int | None, ...]
) -> None:
    assert parse_config(base | changes).traits.layer_windows == windows


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"dtype": "torch.float32", "torch_dtype": "bfloat16"}, "float32"),
        ({"dtype": None}, None),
    ],
)
def test_saved_dtype_by_either_name(changes: dict[str, Any], dtype: str | None) -> None:
    assert parse_config(LLAMA | changes).dtype == dtype


@pytest.mark.parametrize(("value", "ids"), [(2, (2,)), ([2, 5], (2, 5)), (None, ()), (ABSENT, ())])
def test_end_of_text_ids(value: object, ids: tuple[int, ...]) -> None:
    assert parse_config(changed(LLAMA, {"eos_token_id": value})).eos_token_ids == ids


def test_generation_config_has_the_last_word_on_end_of_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config(tmp_path).eos_token_ids == (2,)
    generation = tmp_path / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [7, 8]}))
    assert read_config(tmp_path).eos_token_ids == (7, 8)
    generation.write_text(json.dumps({"temperature": 0.6}))
    assert read_config(tmp_path).eos_token_ids == (2,)
    generation.write_text(json.dumps({"eos_token_id": [96]}))
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id: expected"):
        read_config(tmp_path)


@pytest.mark.parametrize("config_class", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
def test_what_transformers_saves_is_read_as_it_reads_it(
    config_class: type[PreTrainedConfig], tmp_path: Path
) -> None:
    theirs: Any = config_class()
    theirs.save_pretrained(tmp_path)  # architectures is left out: model_type has to do
    ours: ModelConfig = read_config(tmp_path)
    assert ours.num_layers == theirs.num_hidden_layers
    assert ours.num_q_heads == theirs.num_attention_heads
    assert ours.num_kv_heads == theirs.num_key_value_heads
    theirs_head_dim = getattr(theirs, "head_dim", None)
    assert ours.head_dim == (theirs_head_dim or theirs.hidden_size // theirs.num_attention_heads)
    assert ours.max_positions == theirs.max_position_embeddings
    assert math.isclose(ours.rope.theta, theirs.rope_parameters["rope_theta"])
    assert set(ours.traits.layer_windows) == {getattr(theirs, "sliding_window", None)}


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing_vocab": (
        LLAMA,
        {"vocab_size": ABSENT},
        "vocab_size: expected an int >= 1, got no such",
    ),
    "null_layers": (LLAMA, {"num_hidden_layers": None}, "num_hidden_layers: expected .* got None"),
    "text_hidden": (LLAMA, {"hidden_size": "32"}, "hidden_size: expected an int >= 1, got '32'"),
    "float_heads": (LLAMA, {"num_attention_heads": 4.0}, "num_attention_heads: .* got 4.0"),
    "bool_layers": (LLAMA, {"num_hidden_layers": True}, "num_hidden_layers: .* got True"),
    "zero_inner": (LLAMA, {"intermediate_size": 0}, "intermediate_size: .* got 0"),
    "missing_positions": (LLAMA, {"max_position_embeddings": ABSENT}, "max_position_embeddings: "),
    "missing_eps": (LLAMA, {"rms_norm_eps": ABSENT}, "rms_norm_eps: expected a finite number > 0"),
    "nan_eps": (LLAMA, {"rms_norm_eps": math.nan}, "rms_norm_eps: .* got nan"),
    "negative_eps": (LLAMA, {"rms_norm_eps": -1e-6}, "rms_norm_eps: .* got -1e-06"),
    "text_tied": (LLAMA, {"tie_word_embeddings": "no"}, "tie_word_embeddings: expected true or"),
    "odd_kv_heads": (LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor"),
    "no_kv_heads": (QWEN2, {"num_key_value_heads": ABSENT}, "num_key_value_heads: .* no such"),
    "odd_head_dim": (LLAMA, {"head_dim": 7}, "head_dim: expected an even int, got 7"),
    "hidden_not_divisible": (LLAMA, {"hidden_size": 34}, "hidden_size: expected an even multiple"),
    "other_activation": (LLAMA, {"hidden_act": "gelu"}, "hidden_act: expected silu, got 'gelu'"),
    "quantised": (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config: expected unq"),
    "eos_too_large": (LLAMA, {"eos_token_id": 96}, r"eos_token_id: .* \[0, 96\), got 96"),
    "eos_text": (LLAMA, {"eos_token_id": ["2"]}, r"eos_token_id: .* got \['2'\]"),
    "dtype_int8": (LLAMA, {"torch_dtype": "int8"}, "torch_dtype: expected one of float32"),
    "architecture": (
        LLAMA,
        {"architectures": ["GPT2LMHeadModel"]},
        "architectures: expected one of LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, "
        r"Qwen3ForCausalLM, got \['GPT2LMHeadModel'\]",
    ),
    "architecture_text": (LLAMA, {"architectures": "Llama"}, "architectures: expected a list of"),
    "no_architecture": (
        LLAMA,
        {"architectures": ABSENT, "model_type": ABSENT},
        "model_type: expected a string, got no such field",
    ),
    "model_type": (
        LLAMA,
        {"architectures": None, "model_type": "gpt2"},
        "model_type: expected one of llama, mistral, qwen2, qwen3, got 'gpt2'",
    ),
    "bias_text": (LLAMA, {"attention_bias": 1}, "attention_bias: expected true or false, got 1"),
    "window_zero": (MISTRAL, {"sliding_window": 0}, "sliding_window: .* got 0"),
    "mistral_layer_types": (
        MISTRAL,
        {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
        "layer_types: expected sliding_attention in every layer",
    ),
    "short_layer_types": (
        QWEN2,
        {"layer_types": ["full_attention"]},
        "layer_types: expected 2 nam",
    ),
    "other_layer_type": (QWEN3, {"layer_types": ["full_attention", "linear"]}, "layer_types: "),
    "slides_without_window": (
        QWEN2,
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4},
        "layer_types: expected full_attention only",
    ),
}


@pytest.mark.parametrize(("base", "changes", "message"), BAD.values(), ids=BAD)
def test_bad_field_is_named(base: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^config.json: {message}"):
        parse_config(changed(base, changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"vocab_size": 3', "config.json: expected a JSON object"),
        (b"[1, 2]", "config.json: expected a JSON object, got list"),
        (b"\xff\xfe\x00", "config.json: expected a JSON object"),
        (b"", "config.json: expected a JSON object"),
    ],
)
def test_unreadable_config_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path)


def test_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: expected a readable file, got No such"):
        read_config(tmp_path)


def test_directory_in_place_of_config(tmp_path: Path, pristine_llama: Path) -> None:
    shutil.copytree(pristine_llama, tmp_path / "model")
    (tmp_path / "model" / "config.json").unlink()
    (tmp_path / "model" / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json: expected a readable file"):
        read_config(tmp_path / "model")
