"""First come, first served: decode everything that runs, fill the rest of the step with prefill.

Decodes go first so that no running branch waits for a prompt; prompts are cut into chunks that fit
the step's row budget. A waiting task is admitted when all its tokens fit beside what is running;
when decoding itself no longer fits, the youngest tasks are preempted and recomputed later.
Source: vLLM's continuous batching with chunked prefill (Kwon et al., SOSP 2023), simplified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.scheduling.policy import Decision, TaskView, View, Work


@dataclass(frozen=True, kw_only=True)
class FcfsPolicy:
    """`max_rows` bounds a step's rows except decodes, which always run together."""

    max_rows: int = 512

    def decide(self, view: View) -> Decision:
        """Preempt if decoding does not fit, then decode, continue prefills, admit."""
        running, preempt, free = make_room(view)
        decodes = [task for task in running if task.is_decode]
        items = [(task.id, 1) for task in decodes]
        prefills = [task for task in running if not task.is_decode]
        room = max(self.max_rows - len(items), 0)
        chunks, room, free = chunk(prefills, room, free - slots_needed(decodes))
        admitted: list[tuple[int, int]] = []
        if not preempt:
            # what running prefills have still to compute is spoken for
            owed = sum(task.pending for task in prefills) - sum(rows for _, rows in chunks)
            admitted = admit(view.waiting, room, free - owed)
        items += chunks + admitted
        reason = f"{len(items)} tasks, {len(admitted)} admitted, {len(preempt)} preempted"
        works = (Work(items=items),) if items else ()
        return Decision(works=works, preempt=preempt, reason=reason)


def make_room(view: View) -> tuple[list[TaskView], list[int], int]:
    """Preempt the youngest tasks until every remaining one can compute one more row.

    Returns the tasks that go on running, the ids preempted, and the slots then available. At least
    one task is always left running: the engine reports it when even that cannot go on.
    """
    running = list(view.running)
    free = view.kv.available
    preempt: list[int] = []
    while len(running) > 1 and slots_needed(running) > free:
        victim = running.pop()
        preempt.append(victim.id)
        free += victim.held
    return running, preempt, free


def slots_needed(tasks: Sequence[TaskView]) -> int:
    """Slots for one more row of every task; a row that is asked again needs none."""
    return sum(min(task.pending, 1) for task in tasks)


def chunk(
    prefills: Sequence[TaskView], room: int, free: int
) -> tuple[list[tuple[int, int]], int, int]:
    """Hand `room` rows to prefills in order; returns the items and the rows and slots left."""
    items = []
    for task in prefills:
        rows = min(task.pending, room, free)
        if rows > 0:
            items.append((task.id, rows))
            room -= rows
            free -= rows
    return items, room, free


def admit(waiting: Sequence[TaskView], room: int, free: int) -> list[tuple[int, int]]:
    """Admit waiting tasks in order while rows are left and all of a task's tokens fit."""
    items = []
    for task in waiting:
        needed = task.pending + task.cached
        if room <= 0 or needed > free:
            break
        rows = min(task.rows, room)
        items.append((task.id, rows))
        room -= rows
        free -= needed
    return items
