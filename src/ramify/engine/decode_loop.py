"""Decode steps that run ahead: what a step samples is the next one's input and stays on the device.

`launch` queues a step without waiting; `collect` waits for the oldest step that is not collected.
With two steps launched before the first is collected, the device always has one to do while the
host reads the tokens of the other. On a GPU a step is one CUDA graph per padded number of rows and
kind of draws.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ramify.attention import TreeAttention
from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.engine.batch import StepBatch
from ramify.engine.device_clock import DeviceClock
from ramify.engine.draws import PLAIN, DrawKind, DrawnRows, DrawTable
from ramify.engine.graphs import StepGraphs, padded_rows
from ramify.engine.host_copy import HostCopy

MAX_LOOP_ROWS = 512
"""Steps of more rows are launched kernel by kernel, which takes less time than their work."""

MOST_IN_FLIGHT = 2
"""Steps launched and not collected, at most."""


class Forward(Protocol):
    """The model, with keys and values stored in the pool; see Executor.forward."""

    def __call__(
        self, token_ids: Tensor, positions: Tensor, slots: Tensor, attention: TreeAttention
    ) -> Tensor:
        """Logits [rows, vocab]."""
        ...


class Draws(Protocol):
    """How the rows draw their tokens, kept where the logits are."""

    def fill(self, draws: DrawTable, kind: DrawKind) -> None:
        """Take over how the next step draws; of the kind or of less."""
        ...

    def draw(self, logits: Tensor, kind: DrawKind) -> DrawnRows[Tensor]:
        """Draw a token from every row, by what was filled for the same kind.

        Afterwards the draws are those of one position further on, behind the tokens drawn.
        """
        ...


class Computed(NamedTuple):
    """What a step leaves on the device, for its rows and those that pad it."""

    logits: Tensor  # [rows, vocab]
    drawn: DrawnRows[Tensor]


class DecodeLoop:
    """Inputs and results of steps of few rows; in decoding, one row per branch.

    Args:
        forward: the model.
        attention: planned for these steps only; reserved for `max_rows` where graphs are used.
        draws: the sampler's state.
        scratch_slot: where rows that pad a step write.
        max_rows: most branches of a step.
        use_graphs: capture and replay; else the same kernels are launched one by one.

    Attributes:
        wait_s: seconds that `collect` has waited for the device so far.
        num_replays: steps that were a CUDA graph so far.
        clock: if set, adds up what steps take the device.
    """

    def __init__(
        self,
        forward: Forward,
        attention: TreeAttention,
        draws: Draws,
        *,
        scratch_slot: int,
        max_rows: int,
        use_graphs: bool,
    ) -> None:
        self.max_rows = max_rows
        self.attention = attention
        self._forward = forward
        self._draws = draws
        self._scratch_slot = scratch_slot
        device = attention.device
        self._on_gpu = device.type == "cuda"
        # token, position, slot and what a step adds to the last two: 0 for rows that pad
        shape = (4, max_rows)
        self._inputs = torch.zeros(shape, dtype=torch.long, device=device)
        self._host_inputs = torch.zeros(shape, dtype=torch.long, pin_memory=self._on_gpu)
        self._sent = torch.cuda.Event() if self._on_gpu else None
        self._results = [HostCopy(max_rows, on_gpu=self._on_gpu) for _ in range(MOST_IN_FLIGHT)]
        self._in_flight: deque[HostCopy] = deque()
        self._graphs = StepGraphs(self._step, self._prepare_capture) if use_graphs else None
        self._num_rows, self._num_padded, self._kind = 0, 0, PLAIN
        self._num_sent = -1  # rows of the inputs on the host
        self._turn = 0
        self.wait_s = 0.0
        self.num_replays = 0
        self.clock: DeviceClock | None = None

    def capture(self, most_rows: int) -> None:
        """Capture the steps of 1 to `most_rows` rows now instead of when they are first needed."""
        if self._graphs is not None:
            most = min(most_rows, self.max_rows)
            for rows in sorted({padded_rows(rows) for rows in range(1, most + 1)}):
                self._graphs.capture(rows, PLAIN)

    def load(self, batch: StepBatch, kind: DrawKind = PLAIN) -> bool:
        """Take over the rows of a step and plan its attention; False where there is no room.

        Args:
            kind: of the draws that the step is started with.
        """
        while self._in_flight:  # a step that was broken off has left it
            self.collect()
        rows = len(batch.token_ids)
        if rows > self.max_rows:
            return False
        padded = rows if self._graphs is None else padded_rows(rows)
        if self._graphs is not None:
            self._graphs.capture(padded, kind)
        try:
            self.attention.plan(batch.forest, may_mend=batch.follows)
        except InputError:  # a reserved operator has no room for this forest
            return False
        self._num_rows, self._num_padded, self._kind = rows, padded, kind
        self._send(batch.token_ids, batch.positions, batch.slots)
        return True

    def run_once(self) -> Tensor:
        """Logits [rows, vocab] of the rows loaded, valid until the next step; draws nothing."""
        return self._run().logits[: self._num_rows]

    # ── steps that follow one another ────────────────────────────────────────────────────────────
    def start(self, draws: DrawTable) -> None:
        """Queue a step of the rows loaded, with a draw for each, of the kind given to `load`.

        A mended plan is cut anew behind the launch.
        """
        self._draws.fill(draws, self._kind)
        self._launch()
        self.attention.renew()

    def launch(self, grow: Callable[[], Forest]) -> None:
        """Queue another step of the same rows, without waiting.

        Args:
            grow: gives the step's forest, every branch longer by a token than in the step before;
                asked for only where a new attention plan is due.
        """
        if not self.attention.advance():
            self.attention.plan(grow())
        self._launch()

    def _launch(self) -> None:
        assert len(self._in_flight) < MOST_IN_FLIGHT, "a step was launched before its turn"
        drawn, copy = self._run().drawn, self._results[self._turn]
        self._turn = (self._turn + 1) % MOST_IN_FLIGHT
        copy.send(drawn, self._num_rows)
        self._in_flight.append(copy)

    @property
    def num_in_flight(self) -> int:
        """Steps launched and not collected."""
        return len(self._in_flight)

    def collect(self) -> DrawnRows[np.ndarray]:
        """What the oldest step in flight has drawn, in arrays that stay until the next launch."""
        copy = self._in_flight.popleft()
        begin = time.perf_counter()
        copy.wait()
        self.wait_s += time.perf_counter() - begin
        return copy.read()

    def close(self) -> None:
        """Wait for what is in flight, and let go of captured graphs."""
        while self._in_flight:
            self.collect()
        if self._graphs is not None:
            self._graphs.release()

    # ── on the device ────────────────────────────────────────────────────────────────────────────
    def _send(self, *columns: np.ndarray) -> None:
        """Fill the inputs by one copy; rows beyond write to the scratch slot and stay there.

        Args:
            columns: tokens, positions and slots, [rows] int64 each.
        """
        if self._sent is not None:
            self._sent.synchronize()
        rows, host = len(columns[0]), self._host_inputs.numpy()
        if rows != self._num_sent:
            self._num_sent = rows
            host[:, rows:] = np.array([0, 0, self._scratch_slot, 0])[:, None]
            host[3, :rows] = 1
        for line, column in enumerate(columns):
            host[line, :rows] = column
        self._inputs.copy_(self._host_inputs, non_blocking=True)
        if self._sent is not None:
            self._sent.record()

    def _run(self) -> Computed:
        if self.clock is None:
            return self._queue_step()
        with self.clock:
            return self._queue_step()

    def _queue_step(self) -> Computed:
        if self._graphs is None:
            return self._step(self._num_padded, self._kind)
        self.num_replays += 1
        return self._graphs.replay(self._num_padded, self._kind)

    @torch.inference_mode()
    def _step(self, rows: int, kind: DrawKind) -> Computed:
        """Queue a step of the inputs; afterwards they are those of the next."""
        token_ids, positions, slots, stride = self._inputs[:, :rows]
        logits = self._forward(token_ids, positions, slots, self.attention)
        drawn = self._draws.draw(logits, kind)
        token_ids.copy_(drawn.tokens)
        positions.add_(stride)
        slots.add_(stride)
        return Computed(logits, drawn)

    def _prepare_capture(self, rows: int, kind: DrawKind) -> None:
        """Rows that harm nobody: all write to the scratch slot and see it alone."""
        forest = Forest.from_nodes([-1], [1], [self._scratch_slot], [0] * rows)
        self.attention.plan(forest)
        nothing = np.empty(0, dtype=np.int64)
        self._send(nothing, nothing, nothing)
        self._draws.fill(DrawTable.of([]), kind)
