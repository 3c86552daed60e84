"""What does a step cost the host before any attention runs, while a tree grows and changes?

Three things are timed, each on the host alone, and on a GPU with all synchronisation forbidden:

    steps   most append one token per branch and only advance the plan, or plan anew where the
            backend says so; every `FORK_EVERY` steps a branch forks, every `PRUNE_EVERY` one is cut
    full    a plan of a tree that shares nothing with the one before
    few     a plan of the same tree after a twentieth of its nodes came or went
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ramify.attention import TreeAttention
from ramify.bench.attention.growing_tree import GrowingTree
from ramify.bench.attention.rows import PlanRow
from ramify.bench.attention.shapes import Heads
from ramify.bench.env import Environment
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest

FORK_EVERY, PRUNE_EVERY = 20, 50
FEW = 0.05  # of the nodes


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How large the trees are, and how often they are planned."""

    steps: int = 1000
    branches: int = 1024
    nodes: int = 1500  # of the trees that are planned from scratch
    prompt: int = 1000
    repeats: int = 30  # of those plans

    def tree(self, nodes: int, seed: int = 0) -> GrowingTree:
        """A tree of so many nodes, with room for all steps. Raises InputError, see there."""
        room = self.steps + 1
        return GrowingTree.of_size(self.branches, nodes, self.prompt, room=room, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Microseconds of every step of a growing tree."""

    append_us: list[float]
    change_us: list[float]
    num_advanced: int
    branches_last: int
    nodes_last: int


def bench_plan(
    op: TreeAttention, name: str, heads: Heads, stamp: Environment, growth: Growth
) -> PlanRow:
    """Plan every step of a growing tree, then whole trees, with one TreeAttention.

    Raises InputError: a growth without steps or repeats, or of impossible sizes.
    """
    for field in ("steps", "repeats"):
        if getattr(growth, field) < 1:
            raise InputError(expected_got(field, "at least 1", getattr(growth, field)))
    full, few = _whole_plans(op, growth)
    steps = _steps(op, growth)
    append, change = _quantiles(steps.append_us), _quantiles(steps.change_us)
    return PlanRow(
        question="plan",
        provider=name,
        backend=op.backend,
        heads=heads.name,
        prompt_tokens=growth.prompt,
        steps=growth.steps,
        branches_first=growth.branches,
        branches_last=steps.branches_last,
        nodes_last=steps.nodes_last,
        num_advanced=steps.num_advanced,
        num_changes=len(steps.change_us),
        append_p50_us=append[0],
        append_p80_us=append[1],
        change_p50_us=change[0],
        change_p80_us=change[1],
        total_ms=(sum(steps.append_us) + sum(steps.change_us)) / 1e3,
        full_branches=growth.branches,
        full_nodes=growth.nodes,
        full_repeats=growth.repeats,
        full_p50_us=full[0],
        full_p80_us=full[1],
        few_nodes_changed=_few(growth),
        few_p50_us=few[0],
        few_p80_us=few[1],
        is_sync_forbidden=op.device.type == "cuda",
        environment=stamp,
    )


def _steps(op: TreeAttention, growth: Growth) -> _Steps:
    tree = growth.tree(growth.branches + 1)
    op.plan(tree.forest())
    append: list[float] = []
    change: list[float] = []
    advanced = 0
    for index in range(growth.steps):
        tree.append()
        has_changed = _maybe_change(tree, index)
        us = 0.0
        if not has_changed:
            has_advanced, us = _timed(op.advance, op.device)
            advanced += has_advanced
        if has_changed or not has_advanced:
            us += _timed_plan(op, tree.forest())
        (change if has_changed else append).append(us)
    return _Steps(
        append_us=append,
        change_us=change,
        num_advanced=advanced,
        branches_last=len(tree.tips),
        nodes_last=tree.forest().num_nodes,
    )


def _maybe_change(tree: GrowingTree, index: int) -> bool:
    """Fork or prune when it is time. Returns whether it was."""
    forks = index % FORK_EVERY == FORK_EVERY - 1
    prunes = index % PRUNE_EVERY == PRUNE_EVERY - 1
    if prunes:
        tree.prune()
    if forks:
        tree.fork()
    return forks or prunes


def _whole_plans(
    op: TreeAttention, growth: Growth
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Quantiles of the plans from scratch, and of those after few changes."""
    op.plan(growth.tree(growth.nodes).forest())  # buffers have grown, loops are compiled
    full, few = [], []
    for seed in range(1, growth.repeats + 1):
        tree = growth.tree(growth.nodes, seed)
        full.append(_timed_plan(op, tree.forest()))
        tree.append()
        tree.change(_few(growth))
        few.append(_timed_plan(op, tree.forest()))
    return _quantiles(full), _quantiles(few)


def _few(growth: Growth) -> int:
    return max(1, round(FEW * growth.nodes))


def _timed_plan(op: TreeAttention, forest: Forest) -> float:
    return _timed(lambda: op.plan(forest), op.device)[1]


def _timed(call: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """The result, and the microseconds until the host goes on."""
    with _no_synchronisation(device):
        begin = perf_counter()
        result = call()
        end = perf_counter()
    return result, (end - begin) * 1e6


@contextmanager
def _no_synchronisation(device: torch.device) -> Iterator[None]:
    """Whatever waits for the GPU in here raises."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _quantiles(samples: Sequence[float]) -> tuple[float, float]:
    """p50 and p80; 0 of nothing."""
    p50, p80 = np.percentile(samples or [0.0], [50, 80]).tolist()
    return p50, p80
