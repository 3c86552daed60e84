"""What a policy gets to see of the engine: running tasks, the first that wait, and slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ramify.engine.live import LiveTrees
from ramify.engine.request import Force, Task
from ramify.scheduling import KvView, TaskView, View

MAX_WAITING_VIEW = 64
"""Waiting tasks a policy sees at once; the rest queue behind them."""


def relieve(live: LiveTrees) -> bool:
    """Free idle paths where running tasks lack slots for a step; returns whether they do."""
    needed = sum(len(task.paths) for task in live.tasks.values() if task.is_running)
    missing = needed - live.cache.available
    if missing > 0:
        live.drop_idle(missing)
    return missing > 0


def make_view(
    live: LiveTrees, now_s: float, must_wait: Callable[[Task], bool], *, is_tight: bool
) -> View:
    """Freeze what the policy may know.

    Args:
        must_wait: tells the waiting tasks that are not to be admitted yet.
        is_tight: slots are short, so that it matters what preempting a task would free.
    """
    ordered = sorted(live.tasks.values(), key=lambda task: (task.request.id, task.id))
    running = [task for task in ordered if task.is_running]
    waiting = _front(task for task in ordered if not task.is_running and not must_wait(task))
    counted: set[tuple[int, int]] = set()
    return View(
        now_s=now_s,
        running=[_task_view(live, task, counted, is_tight=is_tight) for task in running],
        waiting=[_task_view(live, task, counted, is_tight=False) for task in waiting],
        kv=KvView(total=live.limits.num_slots, available=live.cache.available),
    )


def _task_view(
    live: LiveTrees, task: Task, counted: set[tuple[int, int]], *, is_tight: bool
) -> TaskView:
    """Freeze a task; tokens that siblings wait for together are counted with the first."""
    shared, own = live.pending_parts(task)
    start = (task.request.id, live.start_node(task))
    is_first = start not in counted
    counted.add(start)
    # the cache may have some of a prompt that nobody has opened
    is_open = not (is_first and live.is_unopened(task))
    known, idle = (0, 0) if is_open else live.cached_tokens(task.request)
    known = min(known, shared)
    return TaskView(
        id=task.id,
        request=task.request.id,
        arrival=task.request.id,
        pending=(shared if is_first else 0) + own - known,
        cached=min(idle, known),
        held=live.private_slots(task) if is_tight else 0,
    )


def _front(queued: Iterable[Task]) -> list[Task]:
    """The first tasks of a queue, trees of tokens whole: they are to be computed in one step."""
    front, count = [], 0
    for task in queued:
        count += not (isinstance(task, Force) and task.below is not None)
        if count > MAX_WAITING_VIEW:
            break
        front.append(task)
    return front
