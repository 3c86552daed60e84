"""A worker: a process with a part of the model that does what the first rank does.

It has no books and no policy. It gets a step's rows, or the word that the same branches go on, and
draws their tokens by itself: all ranks have the same logits to the bit (models/shard.py), the same
seeds and the same attention plans.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from dataclasses import replace
from datetime import timedelta
from multiprocessing import connection, parent_process
from pathlib import Path

import torch
import torch.distributed as dist

from ramify.core.config import EngineConfig
from ramify.core.env import keep_nccl_errors_ours
from ramify.engine.batch import StepBatch
from ramify.engine.decode_loop import MOST_IN_FLIGHT
from ramify.engine.draws import DrawKind, DrawTable
from ramify.engine.executor import Executor
from ramify.models import Shard

FAILED = "failed"
"""Begins the last message of a worker."""
HOST = "127.0.0.1"
MEET_TIMEOUT = timedelta(seconds=300)
"""How long ranks wait for one another at a sum on the CPU, and at the start."""


def run_worker(
    channel: connection.Connection, path: Path, config: EngineConfig, shard: Shard
) -> None:
    """Serve until told to leave, or until the first rank is gone.

    Args:
        channel: messages are tuples, a method of `Follower` and its arguments. Before, the number
            of slots that fit here goes out, and the number all agreed on and a port come in.
        path: of the model.
        config: with this rank's device.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first rank to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        _serve(channel, path, config, shard)
    except EOFError:  # the first rank is gone
        os._exit(1)
    except BaseException as error:
        traceback.print_exc()
        channel.send((FAILED, f"{type(error).__name__}: {error}"))
        # an ordinary exit could wait for the other ranks
        os._exit(1)


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker is started by the first rank"
    connection.wait([parent.sentinel])
    os._exit(1)


def _serve(channel: connection.Connection, path: Path, config: EngineConfig, shard: Shard) -> None:
    from ramify.engine.part import load_part, open_executor  # which imports this

    if torch.device(config.device).type == "cuda":
        torch.cuda.set_device(config.device)
    part = load_part(path, config, shard)
    channel.send(part.config.num_slots)
    num_slots, port = channel.recv()
    join_group(dist.TCPStore(HOST, port), part.model.device, shard)
    config = replace(part.config, num_slots=num_slots)
    follower = Follower(open_executor(config, part.model))
    name = ""
    while name != "leave":
        name, *arguments = channel.recv()
        getattr(follower, name)(*arguments)


def join_group(store: dist.TCPStore, device: torch.device, shard: Shard) -> None:
    """Make torch's default process group: NCCL between GPUs, gloo between processes on the CPU."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        keep_nccl_errors_ours()
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=shard.rank,
        world_size=shard.size,
        timeout=MEET_TIMEOUT,
        device_id=device if on_gpu else None,
    )


class Follower:
    """Does with its executor what the first rank does with its own, by the same calls."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._batch: StepBatch | None = None
        self._num_launched = 0

    def run(self, batch: StepBatch) -> None:
        """See Executor.run; nobody here wants the logits."""
        self._collect(0)
        self._executor.run(batch)

    def load(self, batch: StepBatch, kind: DrawKind) -> None:
        """See DecodeLoop.load."""
        self._collect(0)
        assert self._executor.loop is not None, "the first rank has a loop"
        self._executor.loop.load(batch, kind)
        self._batch = batch

    def start(self, draws: DrawTable) -> None:
        """See DecodeLoop.start."""
        assert self._executor.loop is not None
        self._executor.loop.start(draws)
        self._num_launched = 1

    def launch(self) -> None:
        """See DecodeLoop.launch; the forest follows from the batch loaded."""
        batch, loop = self._batch, self._executor.loop
        assert batch is not None and loop is not None, "a step is loaded before others follow"
        self._collect(MOST_IN_FLIGHT - 1)
        loop.launch(lambda: batch.forest.grown(self._num_launched))
        self._num_launched += 1

    def leave(self) -> None:
        """Part from the other ranks."""
        self._executor.close()
        dist.destroy_process_group()

    def _collect(self, most: int) -> None:
        """Wait until no more than `most` steps are in flight."""
        loop = self._executor.loop
        while loop is not None and loop.num_in_flight > most:
            loop.collect()
