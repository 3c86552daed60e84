"""ModelConfig: what `config.json` says, checked field by field and cut to what a decoder needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramify.models.families import FAMILIES
from ramify.models.fields import ConfigFields, read_json_object
from ramify.models.rope import RopeConfig, parse_rope, usable_positions
from ramify.models.traits import Family, Traits

DTYPE_NAMES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only model as the engine sees it.

    `max_positions` counts the positions the model is meant for, rope scaling included (see
    rope.py::usable_positions). `dtype` is the one the weights were saved in, None when unsaid.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    init_std: float
    is_tied: bool
    traits: Traits
    rope: RopeConfig
    eos_token_ids: tuple[int, ...]
    dtype: str | None


def read_config(model_dir: Path, *, is_backbone: bool = False) -> ModelConfig:
    """Read config.json, and the end-of-text ids of generation_config.json where that names them.

    Args:
        is_backbone: any architecture of a known family will do, as its head is not used.
    Raises:
        ConfigError: a file is missing or malformed, or a field missing, ill-typed or unsupported.
    """
    path = model_dir / "config.json"
    config = parse_config(read_json_object(path), source=str(path), is_backbone=is_backbone)
    path = model_dir / "generation_config.json"
    if not path.is_file():
        return config
    fields = ConfigFields(read_json_object(path), source=str(path))
    # generation_config.json has the last word, as in transformers' generate
    ids = _token_ids(fields, "eos_token_id", config.vocab_size)
    return replace(config, eos_token_ids=ids) if ids else config


def parse_config(
    values: dict[str, object], *, source: str = "config.json", is_backbone: bool = False
) -> ModelConfig:
    """Check the content of a config.json; `source` names it in messages. Raises ConfigError."""
    fields = ConfigFields(values, source=source)
    family = _family_of(fields, is_backbone=is_backbone)
    _refuse_unsupported(fields)
    num_layers = fields.integer("num_hidden_layers")
    num_q_heads, num_kv_heads, head_dim = _parse_heads(fields, family)
    max_position_embeddings = fields.integer("max_position_embeddings")
    rope = parse_rope(fields, max_position_embeddings)
    vocab_size = fields.integer("vocab_size")
    return ModelConfig(
        architecture=family.architecture,
        vocab_size=vocab_size,
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=num_layers,
        num_q_heads=num_q_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        max_positions=usable_positions(rope, max_position_embeddings),
        norm_eps=fields.number("rms_norm_eps"),
        init_std=fields.number("initializer_range", default=0.02),
        is_tied=fields.flag("tie_word_embeddings", default=False),
        traits=family.read_traits(fields, num_layers),
        rope=rope,
        eos_token_ids=_token_ids(fields, "eos_token_id", vocab_size),
        dtype=_parse_dtype(fields),
    )


def _family_of(fields: ConfigFields, *, is_backbone: bool) -> Family:
    names = fields.texts("architectures")
    if names is not None:
        for family in FAMILIES:
            # Qwen2ForCausalLM, Qwen2ForSequenceClassification, Qwen2Model
            stem = family.architecture.removesuffix("ForCausalLM")
            is_kin = (
                is_backbone
                and len(names) == 1
                and names[0].startswith((f"{stem}For", f"{stem}Model"))
            )
            if is_kin or names == (family.architecture,):
                return family
        expected = ", ".join(family.architecture for family in FAMILIES)
        raise fields.error("architectures", f"one of {expected}", list(names))
    model_type = fields.text("model_type")
    for family in FAMILIES:
        if model_type == family.model_type:
            return family
    raise fields.error("model_type", f"one of {', '.join(f.model_type for f in FAMILIES)}")


def _refuse_unsupported(fields: ConfigFields) -> None:
    """Settings that would change the logits if they were passed over."""
    if fields.text("hidden_act", default="silu") not in ("silu", "swish"):
        raise fields.error("hidden_act", "silu")
    if fields.has("quantization_config"):
        raise fields.error("quantization_config", "unquantised weights", "quantised weights")


def _parse_heads(fields: ConfigFields, family: Family) -> tuple[int, int, int]:
    """Query heads, KV heads and head_dim."""
    num_q_heads = fields.integer("num_attention_heads")
    # a null means as many as query heads in every family
    is_mha = family.assumes_mha or "num_key_value_heads" in fields.values
    num_kv_heads = fields.integer("num_key_value_heads", default=num_q_heads if is_mha else None)
    if num_q_heads % num_kv_heads:
        raise fields.error("num_key_value_heads", f"a divisor of num_attention_heads {num_q_heads}")
    if fields.has("head_dim") or family.default_head_dim is not None:
        head_dim = fields.integer("head_dim", low=2, default=family.default_head_dim)
        if head_dim % 2:
            raise fields.error("head_dim", "an even int")
        return num_q_heads, num_kv_heads, head_dim
    hidden_size = fields.integer("hidden_size")
    if hidden_size % (2 * num_q_heads):
        raise fields.error("hidden_size", f"an even multiple of num_attention_heads {num_q_heads}")
    return num_q_heads, num_kv_heads, hidden_size // num_q_heads


def _parse_dtype(fields: ConfigFields) -> str | None:
    """`dtype` (transformers 5) or `torch_dtype` (before), with or without the "torch." prefix."""
    for name in ("dtype", "torch_dtype"):
        if fields.has(name):
            dtype = fields.text(name).removeprefix("torch.")
            if dtype not in DTYPE_NAMES:
                raise fields.error(name, f"one of {', '.join(DTYPE_NAMES)}")
            return dtype
    return None


def _token_ids(fields: ConfigFields, name: str, vocab_size: int) -> tuple[int, ...]:
    """One id or a list of ids; absent and null are no ids."""
    value = fields.values.get(name)
    ids: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        is_int = isinstance(token, int) and not isinstance(token, bool)
        if not is_int or not 0 <= token < vocab_size:
            raise fields.error(name, f"token ids in [0, {vocab_size})")
    return tuple(ids)
