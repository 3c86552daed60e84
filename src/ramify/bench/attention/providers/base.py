"""What a provider of attention offers to the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ramify.bench.attention.problem import Problem


class Absent(Exception):
    """The provider cannot run this problem here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a provider knows about a planned problem. Bytes of one layer, None if not known."""

    backend: str | None = None
    method: str | None = None
    kv_bytes_read: int | None = None
    partial_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One problem in a provider's hands.

    plan: what has to happen once per step, timed as plan.
    run: one layer; returns out [Q, Hq, D], timed as kernel. Works without host synchronisation.
    facts: asked for after plan.
    """

    plan: Callable[[], Any]
    run: Callable[[], Tensor]
    facts: Callable[[], Facts]


class Provider(Protocol):
    """Keeps what an engine would keep between steps: workspaces, wrappers, compiled kernels."""

    def prepare(self, problem: Problem) -> Prepared:
        """Take a problem; index lists are made here, untimed. Raises Absent, saying why."""


def nothing() -> None:
    """The plan of those that have none."""


def read_per_row(problem: Problem) -> Facts:
    """Of a provider that reads every row's own path."""
    return Facts(kv_bytes_read=problem.forest.path_tokens * problem.heads.token_bytes)


def read_once(problem: Problem) -> Facts:
    """Of a provider that reads every node once."""
    return Facts(kv_bytes_read=problem.forest.unique_tokens * problem.heads.token_bytes)
