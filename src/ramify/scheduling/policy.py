"""The policy protocol: what runs in the next step, decided from a frozen view.

A policy is pure: no torch, no clock of its own, no side effects on the engine. The engine owns the
slots, checks each decision and carries it out. Lanes and SM splits are part of the shapes already,
so policies that run prefill and decode side by side fit without changing callers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MAIN_LANE = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskView:
    """One unit of work: a path with tokens to compute, after which logits are wanted."""

    id: int
    request: int
    arrival: int  # order of the request's arrival; lower came first
    pending: int  # tokens to compute before logits exist; 0 = only the last row is asked again
    held: int = 0  # slots that preempting this task would free
    cached: int = 0  # of the pending tokens, those that a waiting prompt will find computed

    @property
    def rows(self) -> int:
        """Rows the task needs in all: its pending tokens, or one to ask again."""
        # cached tokens take no row, yet the slots they hold can be evicted no longer
        return max(self.pending - self.cached, 1)

    @property
    def is_decode(self) -> bool:
        """Whether one row is all it needs."""
        return self.pending <= 1


@dataclass(frozen=True, kw_only=True, slots=True)
class KvView:
    """The KV pool in slots; `available` counts free, reserved and evictable ones."""

    total: int
    available: int


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Everything a policy may look at. Tasks come ordered by (arrival, id)."""

    now_s: float
    waiting: Sequence[TaskView]
    running: Sequence[TaskView]
    kv: KvView
    lanes: Sequence[str] = (MAIN_LANE,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What one lane does in this step: (task id, rows) pairs, in order."""

    items: Sequence[tuple[int, int]]
    lane: str = MAIN_LANE


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """A policy's answer. A waiting task that appears in a work is admitted by that."""

    works: Sequence[Work] = ()
    split: Mapping[str, int] | None = None  # streaming multiprocessors per lane; None = all to one
    preempt: Sequence[int] = ()  # tasks whose own KV is dropped, to be recomputed later
    wake_at_s: float | None = None  # when to ask again although nothing has changed
    reason: str = field(default="")  # for traces


class Policy(Protocol):
    """Chooses the next step's work."""

    def decide(self, view: View) -> Decision:
        """Return the work of the next step; an empty decision means nothing can run now."""
        ...
