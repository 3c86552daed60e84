"""What does planning cost while a tree grows, forks and is pruned?

Most steps append one token per branch; every `FORK_EVERY` steps a branch forks in two and every
`PRUNE_EVERY` steps one is cut. Only the host's time in `plan` counts, no attention runs.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from ramify.attention import TreeAttention
from ramify.bench.attention.rows import PlanRow
from ramify.bench.attention.shapes import Heads
from ramify.bench.env import Environment
from ramify.core.forest import Forest

FORK_EVERY, PRUNE_EVERY = 20, 50
NODE_ROOM = 2048  # slots set aside per node


class GrowingTree:
    """A prompt with branches, as lists that change step by step."""

    def __init__(self, branches: int, prompt: int, seed: int = 0) -> None:
        self.parent = [-1] + [0] * branches
        self.length = [prompt] + [1] * branches
        self.tips = list(range(1, branches + 1))
        self._prompt = prompt
        self._rng = np.random.default_rng(seed)

    def step(self, index: int) -> bool:
        """Grow every branch by a token; fork or prune when it is time. Returns whether it did."""
        for tip in self.tips:
            self.length[tip] += 1
        forks = index % FORK_EVERY == FORK_EVERY - 1
        prunes = index % PRUNE_EVERY == PRUNE_EVERY - 1 and len(self.tips) > 1
        if prunes:
            self.tips.pop(int(self._rng.integers(len(self.tips))))
        if forks:
            tip = self.tips.pop(int(self._rng.integers(len(self.tips))))
            first = len(self.parent)
            self.parent += [tip, tip]
            self.length += [1, 1]
            self.tips += [first, first + 1]
        return forks or prunes

    def forest(self) -> Forest:
        """What is live now: the tips and what is above them."""
        live = sorted(self._above_tips())
        index = {node: place for place, node in enumerate(live)}
        begin = [0 if node == 0 else self._prompt + node * NODE_ROOM for node in live]
        length = np.array([self.length[node] for node in live], dtype=np.int64)
        tips = np.array([index[tip] for tip in self.tips], dtype=np.int64)
        return Forest(
            parent=np.array([index.get(self.parent[n], -1) for n in live], dtype=np.int32),
            length=length,
            run_indptr=np.arange(len(live) + 1, dtype=np.int64),
            run_begin=np.array(begin, dtype=np.int64),
            run_len=length,
            query_node=tips,
            query_len=length[tips],
        )

    def _above_tips(self) -> set[int]:
        live: set[int] = set()
        for tip in self.tips:
            node = tip
            while node >= 0 and node not in live:
                live.add(node)
                node = self.parent[node]
        return live


def bench_plan(
    op: TreeAttention,
    name: str,
    heads: Heads,
    stamp: Environment,
    *,
    branches: int = 256,
    prompt: int = 1000,
    steps: int = 1000,
) -> PlanRow:
    """Plan every step of a growing tree with one TreeAttention."""
    tree = GrowingTree(branches, prompt)
    op.plan(tree.forest())
    spans: dict[bool, list[float]] = {False: [], True: []}
    for index in range(steps):
        changed = tree.step(index)
        forest = tree.forest()
        begin = perf_counter()
        op.plan(forest)
        spans[changed].append((perf_counter() - begin) * 1e6)
    append, change = (spans[key] or [0.0] for key in (False, True))
    return PlanRow(
        question="plan",
        provider=name,
        heads=heads.name,
        steps=steps,
        branches_first=branches,
        branches_last=len(tree.tips),
        nodes_last=forest.num_nodes,
        num_changes=len(spans[True]),
        append_p50_us=float(np.percentile(append, 50)),
        append_p80_us=float(np.percentile(append, 80)),
        change_p50_us=float(np.percentile(change, 50)),
        change_p80_us=float(np.percentile(change, 80)),
        total_ms=(sum(append) + sum(change)) / 1e3,
        environment=stamp,
    )
