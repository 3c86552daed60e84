"""How a path gets its value: the question, its answer, and the question that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ramify.engine.request import Force
from ramify.search.controller import Failed, Score, Scored

if TYPE_CHECKING:
    from ramify.engine.live import LiveTrees


class Valuer(Protocol):
    """Values paths. Its answer comes in a later step."""

    def ask(self, live: LiveTrees, task: Force) -> None:
        """Start on a task whose action is a `Score` with `reward`.

        It is `answer`ed, or `refuse`d now or later, unless it is dropped from its request before.
        """
        ...


def answer(task: Force, value: float) -> None:
    """Write down what a path is worth, if nothing stood behind it, and tell its controller."""
    assert isinstance(task.action, Score), "a value is asked for by a Score"
    if not task.action.suffix:
        task.request.tree[task.node].reward = value
    known = Scored(node=task.node, value=value, tag=task.action.tag)
    task.request.events.append(task.then or known)


def refuse(task: Force, reason: str) -> None:
    """Tell the controller that a path has no value; a branch that waited for it has ended."""
    failed = Failed(node=task.node, reason=reason, tag=task.action.tag)
    task.request.events.append(task.then or failed)
