"""A model on one device and the engine around it: weights, pool, limits; "auto" made concrete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ramify.cache import TokenTree
from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, expected_got
from ramify.engine.codec import Codec
from ramify.engine.decode_loop import MAX_LOOP_ROWS
from ramify.engine.draws import HostDraws
from ramify.engine.engine import Engine
from ramify.engine.executor import Executor
from ramify.engine.memory import GIB, Beside, MemoryBudget, kv_bytes_per_token, measure
from ramify.engine.parallel import AnyExecutor
from ramify.engine.rules import Limits
from ramify.models import (
    Decoder,
    Shard,
    load_model,
    load_tokenizer,
    read_config,
    resolve_model_dir,
)
from ramify.models.loader import resolve_device, resolve_dtype
from ramify.scheduling import make_policy
from ramify.zoo import MODELS, bundled_model_dir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CPU_KV_GIB = 1.0
MAX_AUTO_SLOTS = 1 << 16
"""Pool size that `num_slots=None` never exceeds on a CPU, where memory is shared with all else."""


class Part(NamedTuple):
    """What one device holds of a model, all of it where it is alone."""

    model: Decoder
    config: EngineConfig  # with the settings that this device allows
    step_bytes: int  # reserved for the largest step


def model_dir_of(name: str) -> Path:
    """The directory of a bundled model, a local path or a hub id. Raises ConfigError."""
    return bundled_model_dir(name) if name in MODELS else resolve_model_dir(name)


def load_part(
    path: Path,
    config: EngineConfig,
    shard: Shard,
    *,
    has_head: bool = True,
    beside: Beside | None = None,
) -> Part:
    """Load a part of a model onto `config.device`. Raises ConfigError.

    Args:
        has_head: see load_model.
        beside: a second model that is loaded already, and shares what is left of the memory.
    """
    budget = _budget(path, config, shard, has_head) if on_gpu(config) else None
    if budget is not None and beside is not None:
        # the models take turns, and so do their activations
        budget = replace(budget, step=max(budget.step, beside.step_bytes))
    model = load_model(
        path,
        dtype=config.dtype,
        device=config.device,
        load_format=config.load_format,  # type: ignore[arg-type]
        seed=config.seed,
        shard=shard,
        has_head=has_head,
    )
    resolved = _resolve(config, model, budget, beside)
    return Part(model, resolved, 0 if budget is None else budget.step)


def on_gpu(config: EngineConfig) -> bool:
    """Whether the device, made concrete, is a GPU."""
    return config.device.startswith("cuda")


def resolve_auto_device(device: str) -> str:
    """Make "auto" concrete, and check what was said. Raises ConfigError."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(expected_got("device", "auto, cpu or cuda", repr(device)))
    return str(resolve_device(device))


def _budget(path: Path, config: EngineConfig, shard: Shard, has_head: bool) -> MemoryBudget:
    shape = read_config(path, is_backbone=not has_head)
    device = torch.device(config.device)
    assert config.max_rows is not None
    return measure(
        shape,
        resolve_dtype(config.dtype, shape, device),
        device,
        shard,
        utilization=config.gpu_memory_utilization,
        max_rows=config.max_rows,
        logit_rows=MAX_LOOP_ROWS,
    )


def open_executor(config: EngineConfig, model: Decoder) -> Executor:
    """The executor of one device, with a pool of `config.num_slots`. Raises ConfigError."""
    assert config.num_slots is not None
    if on_gpu(config):
        from ramify.engine.cuda import CudaExecutor  # Triton is there on Linux only

        return CudaExecutor(
            model,
            num_slots=config.num_slots,
            method=config.method,
            backend=config.backend,
            use_graphs=config.cuda_graphs,
            fp8_weights=config.quantization == "fp8",
            fp8_kv=config.kv_cache_dtype == "fp8",
        )
    if config.quantization == "fp8":
        raise ConfigError(expected_got("quantization", "none on a CPU", "fp8"))
    executor = Executor(
        model,
        num_slots=config.num_slots,
        method=config.method,
        backend=config.backend,
        fp8_kv=config.kv_cache_dtype == "fp8",
    )
    if config.run_ahead:
        executor.loop = executor.open_loop(HostDraws(), max_rows=MAX_LOOP_ROWS, use_graphs=False)
    return executor


def _tokenizer(path: Path, vocab_size: int) -> PreTrainedTokenizerBase | None:
    tokenizer = load_tokenizer(path)
    if tokenizer is not None and len(tokenizer) > vocab_size:
        got = f"a tokenizer of {len(tokenizer)}"
        raise ConfigError(expected_got("vocab_size", "no fewer entries than the tokenizer", got))
    return tokenizer


def _resolve(
    config: EngineConfig, model: Decoder, budget: MemoryBudget | None, beside: Beside | None
) -> EngineConfig:
    """Replace every "auto" and None by what it means for this model and device."""
    shape, weight = model.config, next(model.parameters())
    is_fp8 = config.kv_cache_dtype == "fp8"
    token_bytes = kv_bytes_per_token(shape, 1 if is_fp8 else weight.itemsize)
    given = config.num_slots
    if beside is not None:
        token_bytes += beside.bytes_per_slot
        given = None if given is None else beside.slots_left(given)
    num_slots = _num_slots(config, token_bytes, budget) if given is None else given
    if num_slots < 2:
        raise ConfigError(
            expected_got("kv_gib", f"room for 2 tokens of {token_bytes} B", num_slots)
        )
    if budget is not None:
        budget.require(num_slots * token_bytes)
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
        run_ahead=budget is not None if config.run_ahead is None else config.run_ahead,
    )


def _num_slots(config: EngineConfig, token_bytes: int, budget: MemoryBudget | None) -> int:
    """Slots of a pool whose size was not given in slots."""
    if budget is None:
        kv_bytes = int((config.kv_gib or CPU_KV_GIB) * GIB)
        return min(kv_bytes // token_bytes, MAX_AUTO_SLOTS)
    kv_bytes = budget.kv_pool if config.kv_gib is None else int(config.kv_gib * GIB)
    # one slot is the scratch slot
    return kv_bytes // token_bytes - 1


# ── the engine around it ─────────────────────────────────────────────────────────────────────────
def open_engine(path: Path, part: Part) -> Engine:
    """An engine of a model on one device, with a pool of its config's size. Raises ConfigError."""
    return make_engine(path, part, open_executor(part.config, part.model))


def make_engine(path: Path, part: Part, executor: AnyExecutor) -> Engine:
    """An engine of a part and an executor that holds it."""
    config, vocab_size = part.config, part.model.config.vocab_size
    assert config.num_slots is not None and config.max_context is not None
    assert config.max_rows is not None
    limits = Limits(
        max_context=config.max_context,
        num_slots=config.num_slots,
        eos_token_ids=part.model.config.eos_token_ids,
    )
    return Engine(
        executor,
        TokenTree(limits.num_slots),
        make_policy(config.policy, max_rows=config.max_rows),
        Codec(_tokenizer(path, vocab_size), vocab_size),
        limits,
        name=config.model,
        prefix_cache=config.prefix_cache,
        run_ahead=bool(config.run_ahead),
        seed=config.seed,
    )
