"""Notices an engine that stands still or runs without end, and interrupts the main thread."""

from __future__ import annotations

import _thread
import signal
import threading
from types import TracebackType
from typing import Any

from ramify.engine import Engine

LOOK_EVERY_S = 1.0


class Watchdog:
    """Used around work on an engine; `reason` says why the work was interrupted.

    Args:
        patience_s: seconds without a step after which the engine stands still.
        most_steps: steps after which it is going round in circles.
    """

    def __init__(self, engine: Engine, *, patience_s: float, most_steps: int) -> None:
        self.reason: str | None = None
        self._engine = engine
        self._patience_s = patience_s
        self._last_step = engine.num_steps + most_steps
        self._done = threading.Event()
        self._handler: Any = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        # a process started in the background ignores interrupts, its own among them
        self._handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        signal.signal(signal.SIGINT, self._handler)

    def _watch(self) -> None:
        seen, still_s = self._engine.num_steps, 0.0
        while not self._done.wait(LOOK_EVERY_S):
            now = self._engine.num_steps
            still_s = still_s + LOOK_EVERY_S if now == seen else 0.0
            seen = now
            if still_s >= self._patience_s:
                self.reason = f"no step for {self._patience_s:.0f} s"
            elif now > self._last_step:
                self.reason = "no end of steps"
            if self.reason is not None:
                _thread.interrupt_main()
                return
