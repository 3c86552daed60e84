"""From settings to a running engine: model, pool, cache, policy, limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ramify.cache import TokenTree
from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, expected_got
from ramify.engine.codec import Codec
from ramify.engine.decode_loop import MAX_LOOP_ROWS
from ramify.engine.engine import Engine
from ramify.engine.executor import Executor
from ramify.engine.live import Limits
from ramify.engine.memory import GIB, MemoryBudget, measure
from ramify.engine.sample import HostDraws
from ramify.engine.startup import Startup, Stopwatch
from ramify.models import Decoder, load_model, load_tokenizer, read_config, resolve_model_dir
from ramify.models.loader import resolve_device, resolve_dtype
from ramify.scheduling import make_policy
from ramify.zoo import MODELS, bundled_model_dir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CPU_KV_GIB = 1.0
MAX_AUTO_SLOTS = 1 << 16
"""Pool size that `num_slots=None` never exceeds on a CPU, where memory is shared with all else."""


def model_dir_of(name: str) -> Path:
    """The directory of a bundled model, a local path or a hub id. Raises ConfigError."""
    return bundled_model_dir(name) if name in MODELS else resolve_model_dir(name)


def build_engine(config: EngineConfig) -> tuple[Engine, EngineConfig, Startup]:
    """Load everything; returns the engine, its settings made concrete, and what the start took.

    Raises:
        ConfigError: a setting, the model directory or one of its files is wrong, or the device has
            not the memory; the message says how much is there.
    """
    path = model_dir_of(config.model)
    config = replace(config, device=_device(config.device))
    max_rows = config.max_rows or (8192 if _on_gpu(config) else 512)
    config = replace(config, max_rows=max_rows)
    budget = _budget(path, config, max_rows) if _on_gpu(config) else None
    watch = Stopwatch(torch.device(config.device))
    model = load_model(
        path,
        dtype=config.dtype,
        device=config.device,
        load_format=config.load_format,  # type: ignore[arg-type]
        seed=config.seed,
    )
    weights_s = watch.lap()
    resolved = _resolve(config, model, budget)
    assert resolved.num_slots is not None and resolved.max_context is not None
    limits = Limits(
        max_context=resolved.max_context,
        num_slots=resolved.num_slots,
        eos_token_ids=model.config.eos_token_ids,
    )
    executor = _executor(resolved, model)
    startup = Startup(
        weights_s=weights_s,
        pool_s=executor.pool_s,
        kernels_s=watch.lap() - executor.pool_s,
        step_bytes=0 if budget is None else budget.step,
        **_sizes(executor, limits.num_slots),
    )
    engine = Engine(
        executor,
        TokenTree(limits.num_slots),
        make_policy(config.policy, max_rows=max_rows),
        Codec(_tokenizer(path, model.config.vocab_size), model.config.vocab_size),
        limits,
        prefix_cache=config.prefix_cache,
        run_ahead=bool(resolved.run_ahead),
        seed=config.seed,
    )
    return engine, resolved, startup


def _on_gpu(config: EngineConfig) -> bool:
    return config.device.startswith("cuda")


def _device(device: str) -> str:
    """Make "auto" concrete, and check what was said. Raises ConfigError."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(expected_got("device", "auto, cpu or cuda", repr(device)))
    return str(resolve_device(device))


def _budget(path: Path, config: EngineConfig, max_rows: int) -> MemoryBudget:
    shape, device = read_config(path), torch.device(config.device)
    return measure(
        shape,
        resolve_dtype(config.dtype, shape, device),
        device,
        utilization=config.gpu_memory_utilization,
        max_rows=max_rows,
        logit_rows=MAX_LOOP_ROWS,
    )


def _executor(config: EngineConfig, model: Decoder) -> Executor:
    assert config.num_slots is not None
    if _on_gpu(config):
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


def _sizes(executor: Executor, num_slots: int) -> dict[str, int]:
    return {
        "num_slots": num_slots,
        "kv_pool_bytes": num_slots * executor.kv_bytes_per_token,
        "weight_bytes": sum(weight.nbytes for weight in executor.model.parameters()),
    }


def _tokenizer(path: Path, vocab_size: int) -> PreTrainedTokenizerBase | None:
    tokenizer = load_tokenizer(path)
    if tokenizer is not None and len(tokenizer) > vocab_size:
        got = f"a tokenizer of {len(tokenizer)}"
        raise ConfigError(expected_got("vocab_size", "no fewer entries than the tokenizer", got))
    return tokenizer


def _resolve(config: EngineConfig, model: Decoder, budget: MemoryBudget | None) -> EngineConfig:
    """Replace every "auto" and None by what it means for this model and device."""
    shape, weight = model.config, next(model.parameters())
    itemsize = 1 if config.kv_cache_dtype == "fp8" else weight.itemsize
    token_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * itemsize
    num_slots = config.num_slots or _num_slots(config, token_bytes, budget)
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
