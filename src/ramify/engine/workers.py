"""The processes that hold the other parts of a model, as the first one sees them.

What to do next goes through a pipe per worker, pickled. A worker that waits in a pipe wakes within
tens of microseconds and takes no core; in steady decoding a message is a word and is sent a step
ahead, so that none of it is on the device's path. Results never come back: every rank computes
them. What does come back after the start is the news of a failure, which a thread waits for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from ramify.core.config import EngineConfig
from ramify.core.errors import WorkerError
from ramify.engine.follow import FAILED, run_worker
from ramify.models import Shard

STEP_TIMEOUT_S = 300.0
"""A step that takes longer hangs. The first one of a kind compiles kernels."""
LOOK_S = 0.2
"""How often the watching thread looks at the clock."""
NEWS_S = 5.0
"""How long the news of a failure may take after its effect was felt."""
EXIT_S = 20.0
"""How long a worker may take to leave."""


class Workers:
    """Ranks 1 and up. `start` them, ask for `answers`, then `watch` them and take `step`s.

    Attributes:
        failure: why the group is over, None while it is not.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._has_failed = threading.Event()
        self._guard = threading.Lock()
        self._processes: list[Any] = []
        self._channels: list[connection.Connection] = []
        self._busy_since: float | None = None
        self._on_failure: Callable[[], None] = lambda: None
        self._watcher = threading.Thread(target=self._watch, name="ramify workers", daemon=True)

    def start(self, path: Path, config: EngineConfig) -> None:
        """Start a process for every rank but the first; they load their parts meanwhile."""
        context = multiprocessing.get_context("spawn")
        for rank in range(1, config.tensor_parallel_size):
            ours, theirs = context.Pipe()
            shard = Shard(rank, config.tensor_parallel_size)
            process = context.Process(
                target=run_worker,
                args=(theirs, path, config_of(config, rank), shard),
                name=f"ramify rank {rank}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._channels.append(ours)

    def answers(self) -> list[Any]:
        """What every worker sends next, in order of ranks. Raises WorkerError if one failed."""
        return [self._answer(rank) for rank in range(1, len(self._channels) + 1)]

    def _answer(self, rank: int) -> Any:
        answer = self._read(rank)
        if isinstance(answer, tuple) and answer[0] == FAILED:
            self.fail(f"rank {rank}: {answer[1]}")
            raise WorkerError(self.failure)
        return answer

    def _read(self, rank: int) -> Any:
        try:
            return self._channels[rank - 1].recv()
        except (EOFError, OSError):
            process = self._processes[rank - 1]
            process.join(NEWS_S)
            return FAILED, f"the process ended with exit code {process.exitcode}"

    def send(self, *message: object) -> None:
        """Send all workers the same message."""
        for channel in self._channels:
            channel.send(message)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────
    @contextlib.contextmanager
    def step(self, *message: object) -> Iterator[None]:
        """Let the workers do what the message says while the body does the same here.

        Without a message the body waits for what was sent before.

        Raises:
            WorkerError: a worker failed, now or before. An error of the body comes out as it is;
                as the ranks are out of step then, the next call raises WorkerError.
        """
        self._check()
        self._busy_since = time.monotonic()
        try:
            if message:
                self.send(*message)
            yield
        except BaseException as error:
            # a worker that is gone is felt as a broken connection
            if isinstance(error, OSError | RuntimeError) and self._has_failed.wait(NEWS_S):
                raise WorkerError(self.failure) from error
            if message:
                self.fail(f"the first rank left a step: {error!r}")
            raise
        finally:
            self._busy_since = None
        self._check()

    def _check(self) -> None:
        if self.failure is not None:
            raise WorkerError(self.failure)

    # ── failures and the end ─────────────────────────────────────────────────────────────────────
    def watch(self, on_failure: Callable[[], None]) -> None:
        """Notice from now on a worker that fails; `on_failure` must free who waits for it.

        The thread that watches calls it, once, so that it may wait for the main one.
        """
        self._on_failure = on_failure
        self._watcher.start()

    def _watch(self) -> None:
        ranks = {channel: rank for rank, channel in enumerate(self._channels, start=1)}
        while self.failure is None:
            for channel in connection.wait(list(ranks), timeout=LOOK_S):
                rank = ranks[channel]  # type: ignore[index]
                _, reason = self._read(rank)
                self.fail(f"rank {rank}: {reason}")
                break
            since = self._busy_since
            if since is not None and time.monotonic() - since > STEP_TIMEOUT_S:
                self.fail(f"a step took longer than {STEP_TIMEOUT_S:.0f} s")
        if self._has_failed.is_set():
            self._on_failure()

    def fail(self, reason: str) -> None:
        """End the group because of a failure: nobody may go on alone."""
        if self._end(reason, is_failure=True):
            for process in self._processes:
                process.kill()

    def dismiss(self) -> None:
        """Ask the workers to leave; nothing can be sent any more."""
        if self._end("the engine was closed", is_failure=False):
            with contextlib.suppress(OSError):
                self.send("leave")

    def _end(self, reason: str, *, is_failure: bool) -> bool:
        """Note why the group is over; False if it is already."""
        with self._guard:
            if self.failure is not None:
                return False
            if is_failure:
                self._has_failed.set()
            self.failure = reason
            return True

    def unwatch(self) -> None:
        """Once the group is over, wait until the thread that watched has done what it must."""
        if self._watcher.is_alive():
            self._watcher.join(EXIT_S)

    def join(self) -> None:
        """Wait until all workers are gone, and see to it."""
        for process in self._processes:
            process.join(EXIT_S)
            process.kill()
            process.join()
        for channel in self._channels:
            channel.close()


def config_of(config: EngineConfig, rank: int) -> EngineConfig:
    """The settings of a rank. Only the first one drafts."""
    return replace(config, device=device_of(config.device, rank), speculative_config=None)


def device_of(first: str, rank: int) -> str:
    """The device of a rank: GPUs follow one another from the first rank's on."""
    device = torch.device(first)
    if device.type != "cuda":
        return first
    begin = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{begin + rank}"
