"""Tensor parallelism: an executor whose model is spread over processes, each with a device.

The first rank is the user's process. It alone has the loop, the books, the cache and the policy;
the engine calls its executor as ever, and every call is sent to the workers before it is made here
(workers.py, follow.py). K and V lie where their heads are, so slots mean the same on every rank.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ramify.attention import TreeAttention
from ramify.core.forest import Forest
from ramify.engine.batch import StepBatch
from ramify.engine.decode_loop import DecodeLoop
from ramify.engine.draws import PLAIN, DrawKind, DrawnRows, DrawTable
from ramify.engine.executor import Executor
from ramify.engine.follow import HOST
from ramify.engine.workers import Workers
from ramify.models import Decoder

STORE_TIMEOUT = timedelta(seconds=60)


class ParallelLoop:
    """A decode loop on every rank; see DecodeLoop, whose calls these are."""

    def __init__(self, loop: DecodeLoop, workers: Workers) -> None:
        self._loop = loop
        self._workers = workers

    def load(self, batch: StepBatch, kind: DrawKind = PLAIN) -> bool:
        """See DecodeLoop.load; all ranks find the same."""
        with self._workers.step("load", batch, kind):
            return self._loop.load(batch, kind)

    def start(self, draws: DrawTable) -> None:
        """See DecodeLoop.start."""
        with self._workers.step("start", draws):
            self._loop.start(draws)

    def launch(self, grow: Callable[[], Forest]) -> None:
        """See DecodeLoop.launch."""
        with self._workers.step("launch"):
            self._loop.launch(grow)

    @property
    def num_in_flight(self) -> int:
        """Steps launched and not collected."""
        return self._loop.num_in_flight

    @property
    def wait_s(self) -> float:
        """Seconds that `collect` has waited here so far."""
        return self._loop.wait_s

    def collect(self) -> DrawnRows[np.ndarray]:
        """See DecodeLoop.collect; the workers have drawn the same."""
        with self._workers.step():
            return self._loop.collect()


class ParallelExecutor:
    """An executor on every rank; see Executor. Numbers are those of all ranks together.

    Raises:
        WorkerError: from every call once a worker failed, or after `close`.
    """

    def __init__(self, local: Executor, workers: Workers) -> None:
        self._local = local
        self._workers = workers
        self._size = dist.get_world_size()
        self.loop = None if local.loop is None else ParallelLoop(local.loop, workers)
        atexit.register(self.close)

    def run(self, batch: StepBatch) -> Tensor:
        """See Executor.run."""
        with self._workers.step("run", batch):
            logits = self._local.run(batch)
            if logits.is_cuda:
                # what a sum that was broken off leaves must not be taken for logits
                torch.cuda.current_stream(logits.device).synchronize()
        return logits

    def draw(self, batch: StepBatch, draws: DrawTable) -> bool:
        """See Executor.draw."""
        if self.loop is None or not self.loop.load(batch):
            return False
        self.loop.start(draws)
        self._local.show_hidden(len(batch.token_ids))
        return True

    def collect(self) -> tuple[list[int], list[float]]:
        """See Executor.collect."""
        assert self.loop is not None
        drawn = self.loop.collect()
        return drawn.tokens.tolist(), drawn.logprobs.tolist()

    def keep_hidden(self) -> None:
        """See Executor; every rank has whole hidden states, and the first one's are read."""
        self._local.keep_hidden()

    @property
    def hidden(self) -> Tensor | None:
        """See Executor."""
        return self._local.hidden

    def close(self) -> None:
        """End the workers; the engine cannot run any more."""
        atexit.unregister(self.close)
        self._workers.dismiss()
        self._local.close()
        leave_group(self._workers)

    @property
    def model(self) -> Decoder:
        """The first rank's part."""
        return self._local.model

    @property
    def attention(self) -> TreeAttention:
        """The first rank's operator, of its heads."""
        return self._local.attention

    @property
    def scratch_slot(self) -> int:
        """See Executor."""
        return self._local.scratch_slot

    @property
    def method_in_use(self) -> str:
        """See Executor."""
        return self._local.method_in_use

    @property
    def attention_s(self) -> float:
        """See Executor; on the first rank."""
        return self._local.attention_s

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token's K and V take over all layers."""
        return self._local.kv_bytes_per_token * self._size

    @property
    def kv_bytes_read(self) -> int:
        """Bytes of K and V that attention has read so far."""
        return self._local.kv_bytes_read * self._size

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on one device."""
        return self._local.weight_bytes

    @property
    def device(self) -> torch.device:
        """The first rank's."""
        return self._local.device


AnyExecutor: TypeAlias = Executor | ParallelExecutor
AnyLoop: TypeAlias = DecodeLoop | ParallelLoop


def open_store() -> dist.TCPStore:
    """Where the ranks find one another, on a free port of this machine."""
    return dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=STORE_TIMEOUT)


def leave_group(workers: Workers) -> None:
    """Leave the process group and see all workers gone; the group must be over."""
    workers.unwatch()
    if dist.is_initialized():
        dist.destroy_process_group()
    workers.join()


def break_off(device: torch.device) -> None:
    """Free whoever waits on this device for a rank that will not come.

    Returns when no captured step is left that holds on to NCCL's communicator.
    """
    # on a CPU the connection to a rank that is gone breaks by itself
    if device.type == "cuda" and dist.group.WORLD is not None:
        with contextlib.suppress(RuntimeError):
            dist.group.WORLD.abort()
