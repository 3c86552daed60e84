"""What a step holds: tasks are preempted, opened and admitted as the policy decided, and give rows.

A prompt whose prefix another one computes in the same step is not admitted: it can reuse it next.
"""

from __future__ import annotations

from collections.abc import Callable

from ramify.cache import Node
from ramify.core.errors import OutOfSlots
from ramify.engine import beams
from ramify.engine.batch import BatchBuilder
from ramify.engine.live import LiveTrees
from ramify.engine.record import Wanted
from ramify.engine.request import Beams, Request, Task
from ramify.engine.speculation.speculator import Speculator
from ramify.scheduling import Decision

MAX_LOGITS_PER_TASK = 256
"""Logits rows one task may ask for in a step, which bounds memory when prompts are scored."""


class Assembly:
    """Turns decisions into batches of rows.

    Attributes:
        speculator: if set, lets its drafter guess ahead for every branch that decodes.
    """

    def __init__(self, live: LiveTrees, scratch_slot: int, clock: Callable[[], float]) -> None:
        self.speculator: Speculator | None = None
        self._live = live
        self._scratch_slot = scratch_slot
        self._clock = clock
        self._coming: set[Node] = set()  # what the running tasks of the step compute

    def begin(self) -> None:
        """Before the policy looks: note what running tasks will compute."""
        self._coming = self._live.coming()

    def must_wait(self, task: Task) -> bool:
        """Whether another request is computing a prefix that this prompt can then reuse."""
        if not self._live.is_unopened(task):
            return False
        return self._live.shares_prefill(task.request, self._coming)

    def assemble(
        self, decision: Decision, fail: Callable[[Request, Exception], None]
    ) -> tuple[BatchBuilder, list[tuple[Task, Wanted, bool]]]:
        """Preempt, open, admit and schedule what was decided.

        Args:
            fail: ends a request whose drafter raised.
        Returns:
            The rows, and of each task the logits it wants and whether its path is computed then.
        """
        for task_id in decision.preempt:
            task = self._live.tasks[task_id]
            assert task.is_running, "a policy may preempt running tasks only"
            self._live.suspend(task)
        items = [item for work in decision.works for item in work.items]
        assert all(rows > 0 for _, rows in items), "a policy must give a task at least one row"
        # opening may split nodes, so all paths are open before the builder holds on to any node
        chosen = [
            (task, rows)
            for task, rows in ((self._live.tasks[task_id], rows) for task_id, rows in items)
            if self._admit(task)
        ]
        if self.speculator is not None:
            self.speculator.propose(chosen, fail)
            chosen = [(task, rows) for task, rows in chosen if task.id in self._live.tasks]
        builder = BatchBuilder(self._live.cache, self._scratch_slot)
        scheduled: list[tuple[Task, bool]] = []
        for task, rows in chosen:
            try:
                whole = self._schedule(builder, task, rows)
            except OutOfSlots:
                # the policy counted on slots that others took first: try again next step
                self._live.suspend(task)
                continue
            scheduled.append((task, whole))
        ready = [self._want(builder, task, whole) for task, whole in scheduled]
        if self.speculator is not None:
            self.speculator.attach(builder, [task for task, whole in scheduled if whole])
        return builder, ready

    def _schedule(self, builder: BatchBuilder, task: Task, rows: int) -> bool:
        """Add rows of a task; returns whether its whole path is computed then."""
        if isinstance(task, Beams):
            return beams.schedule(builder, task, rows)
        return builder.schedule(self._live.open(task), rows, task.request.id)

    def _admit(self, task: Task) -> bool:
        """Open a task's path; False when a prompt admitted just before it computes its prefix."""
        if self.must_wait(task):
            return False
        if not task.paths:
            self._live.open(task)
        self._coming |= self._live.cache.coming(task.paths)
        task.is_running = True
        if task.request.admitted_s is None:
            task.request.admitted_s = self._clock()
            task.request.usage.queue_s = task.request.admitted_s - task.request.arrived_s
        return True

    @staticmethod
    def _want(builder: BatchBuilder, task: Task, whole: bool) -> tuple[Task, Wanted, bool]:
        """Ask the batch for the logits a task wants and this step can give."""
        if isinstance(task, Beams):
            return task, beams.wanted(builder, task), whole
        assert task.cursor is not None, "a scheduled task has an open path"
        positions = task.wanted()
        asked = positions[:MAX_LOGITS_PER_TASK]
        wanted = builder.logits_at(task.cursor, asked, task.request.id)
        return task, wanted, whole and len(asked) == len(positions)
