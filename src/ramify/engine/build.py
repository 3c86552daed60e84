"""From settings to a running engine, on one device or several, with drafter and reward model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, expected_got
from ramify.core.speculative import SpeculativeConfig, speculative_config
from ramify.engine.engine import Engine
from ramify.engine.follow import join_group
from ramify.engine.parallel import (
    AnyExecutor,
    ParallelExecutor,
    break_off,
    leave_group,
    open_store,
)
from ramify.engine.part import (
    Part,
    load_part,
    make_engine,
    model_dir_of,
    on_gpu,
    open_executor,
    resolve_auto_device,
)
from ramify.engine.reward.load import LoadedReward, load_reward
from ramify.engine.speculation.draft import Drafter
from ramify.engine.speculation.make import make_drafter
from ramify.engine.startup import Startup, Stopwatch
from ramify.engine.workers import Workers, device_of
from ramify.models import Shard, read_config


def build_engine(config: EngineConfig) -> tuple[Engine, EngineConfig, Startup]:
    """Load everything; returns the engine, its settings made concrete, and what the start took.

    Raises:
        ConfigError: a setting, the model directory or one of its files is wrong, or the device has
            not the memory; the message says how much is there.
        WorkerError: another process that was to hold a part of the model failed.
    """
    path = model_dir_of(config.model)
    config = replace(config, device=resolve_auto_device(config.device))
    max_rows = config.max_rows or (8192 if on_gpu(config) else 512)
    config = replace(config, max_rows=max_rows)
    watch = Stopwatch(torch.device(config.device))
    # first, as the target's pool takes the memory that is left
    drafter, reward = _drafter(path, config), load_reward(config)
    is_shared = config.tensor_parallel_size > 1
    opened = (_open_shared if is_shared else _open_alone)(path, config, watch, reward)
    try:
        startup = _startup(opened, kernels_s=watch.lap() - opened.pool_s)
        engine = make_engine(path, opened.part, opened.executor)
        if drafter is not None:
            engine.speculate(*drafter)
        if reward is not None:
            reward.attach(engine, opened.part.config)
        return engine, opened.part.config, startup
    except BaseException:
        opened.executor.close()
        raise


class _Opened(NamedTuple):
    executor: AnyExecutor
    part: Part
    weights_s: float
    pool_s: float


def _open_alone(
    path: Path, config: EngineConfig, watch: Stopwatch, reward: LoadedReward | None
) -> _Opened:
    beside = None if reward is None else reward.beside
    part = load_part(path, config, Shard(), beside=beside)
    weights_s = watch.lap()
    executor = open_executor(part.config, part.model)
    return _Opened(executor, part, weights_s, executor.pool_s)


def _drafter(path: Path, config: EngineConfig) -> tuple[Drafter, SpeculativeConfig] | None:
    """What drafts for the engine, if anything does. Raises ConfigError."""
    drafts = speculative_config(config.speculative_config)
    if drafts is None:
        return None
    return make_drafter(drafts, config, path), drafts


def _startup(opened: _Opened, *, kernels_s: float) -> Startup:
    part, executor = opened.part, opened.executor
    assert part.config.num_slots is not None
    kv_bytes_per_token = executor.kv_bytes_per_token // part.config.tensor_parallel_size
    return Startup(
        weights_s=opened.weights_s,
        pool_s=opened.pool_s,
        kernels_s=kernels_s,
        step_bytes=part.step_bytes,
        num_slots=part.config.num_slots,
        kv_pool_bytes=part.config.num_slots * kv_bytes_per_token,
        weight_bytes=executor.weight_bytes,
    )


# ── several devices ──────────────────────────────────────────────────────────────────────────────
def _check_group(path: Path, config: EngineConfig) -> None:
    """Raise ConfigError unless as many devices can share the model."""
    size = config.tensor_parallel_size
    Shard(size=size).cut(read_config(path))
    if on_gpu(config):
        last, count = device_of(config.device, size - 1), torch.cuda.device_count()
        if int(last.partition(":")[2]) >= count:
            expected = f"GPUs up to {last}"
            raise ConfigError(expected_got("tensor_parallel_size", expected, f"{count} GPUs"))
    if dist.is_initialized():
        expected = "a process without a torch.distributed process group"
        raise ConfigError(expected_got("tensor_parallel_size", expected, "one that has it"))


def _open_shared(
    path: Path, config: EngineConfig, watch: Stopwatch, reward: LoadedReward | None
) -> _Opened:
    """Start the workers and set up every rank."""
    _check_group(path, config)
    if reward is not None and reward.beside is not None:
        wanted = "1 with a second model that values texts"
        raise ConfigError(expected_got("tensor_parallel_size", wanted, config.tensor_parallel_size))
    config = replace(config, device=device_of(config.device, 0))
    workers = Workers()
    try:
        workers.start(path, config)
        part = _meet(path, config, workers)
        weights_s = watch.lap()
        local = open_executor(part.config, part.model)
        return _Opened(ParallelExecutor(local, workers), part, weights_s, local.pool_s)
    except BaseException as error:
        workers.fail(repr(error))
        leave_group(workers)
        raise


def _meet(path: Path, config: EngineConfig, workers: Workers) -> Part:
    """Load the first part while workers load theirs; the smallest pool decides for all."""
    shard = Shard(0, config.tensor_parallel_size)
    part = load_part(path, config, shard)
    assert part.config.num_slots is not None
    num_slots = min(part.config.num_slots, *workers.answers())
    store = open_store()
    workers.send(num_slots, store.port)
    join_group(store, part.model.device, shard)
    workers.watch(lambda: break_off(part.model.device))
    return part._replace(config=replace(part.config, num_slots=num_slots))
