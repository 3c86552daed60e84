"""From settings to a running engine: model, pool, cache, policy, limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ramify.cache import TokenTree
from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, expected_got
from ramify.engine.codec import Codec
from ramify.engine.engine import Engine
from ramify.engine.executor import Executor
from ramify.engine.live import Limits
from ramify.models import Decoder, load_model, load_tokenizer, resolve_model_dir
from ramify.scheduling import make_policy
from ramify.zoo import MODELS, bundled_model_dir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_AUTO_SLOTS = 1 << 16
"""Pool size that `num_slots=None` never exceeds on a CPU, where memory is shared with all else."""


def model_dir_of(name: str) -> Path:
    """The directory of a bundled model, a local path or a hub id. Raises ConfigError."""
    return bundled_model_dir(name) if name in MODELS else resolve_model_dir(name)


def build_engine(config: EngineConfig) -> tuple[Engine, EngineConfig]:
    """Load everything and return the engine with its settings made concrete.

    Raises:
        ConfigError: a setting, the model directory or one of its files is wrong.
    """
    if config.device not in ("auto", "cpu"):
        raise ConfigError(expected_got("device", "auto or cpu", repr(config.device)))
    path = model_dir_of(config.model)
    model = load_model(
        path,
        dtype=config.dtype,
        device="cpu",
        load_format=config.load_format,  # type: ignore[arg-type]
        seed=config.seed,
    )
    resolved = _resolve(config, model)
    assert resolved.num_slots is not None and resolved.max_context is not None
    limits = Limits(
        max_context=resolved.max_context,
        num_slots=resolved.num_slots,
        eos_token_ids=model.config.eos_token_ids,
    )
    engine = Engine(
        Executor(model, num_slots=limits.num_slots, method=config.method, backend=config.backend),
        TokenTree(limits.num_slots),
        make_policy(config.policy, max_rows=config.max_rows),
        Codec(_tokenizer(path, model.config.vocab_size), model.config.vocab_size),
        limits,
        prefix_cache=config.prefix_cache,
        seed=config.seed,
    )
    return engine, resolved


def _tokenizer(path: Path, vocab_size: int) -> PreTrainedTokenizerBase | None:
    tokenizer = load_tokenizer(path)
    if tokenizer is not None and len(tokenizer) > vocab_size:
        got = f"a tokenizer of {len(tokenizer)}"
        raise ConfigError(expected_got("vocab_size", "no fewer entries than the tokenizer", got))
    return tokenizer


def _resolve(config: EngineConfig, model: Decoder) -> EngineConfig:
    """Replace every "auto" and None by what it means for this model."""
    shape, weight = model.config, next(model.parameters())
    token_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * weight.itemsize
    num_slots = config.num_slots or min(int(config.kv_gib * 2**30) // token_bytes, MAX_AUTO_SLOTS)
    if num_slots < 2:
        raise ConfigError(
            expected_got("kv_gib", f"room for 2 tokens of {token_bytes} B", num_slots)
        )
    limit = shape.max_positions
    if config.max_context is not None and config.max_context > limit:
        raise ConfigError(
            expected_got("max_context", f"<= {limit}, the model's", config.max_context)
        )
    return replace(
        config,
        device=str(weight.device),
        dtype=str(weight.dtype).removeprefix("torch."),
        num_slots=num_slots,
        max_context=config.max_context or limit,
    )
