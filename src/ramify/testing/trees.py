"""Tree shapes: the named ones that benchmarks quote, and random forests that try to break things.

Every forest owns a pool of `num_slots` slots with room between nodes, so unused slots exist to be
poisoned. Shapes follow the workloads of DeFT (few-shot, reasoning, speculative) and plain serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest


@dataclass(frozen=True, kw_only=True)
class TreeCase:
    """A forest and the pool it lives in."""

    forest: Forest
    num_slots: int


@dataclass(frozen=True, kw_only=True)
class RandomForestSpec:
    """Limits of `random_forest`; sizes are drawn up to them."""

    num_roots: int = 3
    max_depth: int = 6
    max_fan_out: int = 4
    max_nodes: int = 40
    max_length: int = 40
    num_rows: int = 32
    max_runs: int = 3
    partial_rows: bool = True  # rows that see only a prefix of their node


def random_forest(seed: int, spec: RandomForestSpec | None = None) -> TreeCase:
    """Several roots, empty and one-token nodes, fragmented runs, shuffled nodes and rows."""
    spec = spec or RandomForestSpec()
    rng = np.random.default_rng(seed)
    parent = _shuffle_nodes(_random_parents(rng, spec), rng)
    length = rng.integers(0, spec.max_length + 1, len(parent))
    length[rng.random(len(parent)) < 0.15] = 0
    length[rng.random(len(parent)) < 0.15] = 1
    query_node = rng.integers(0, len(parent), spec.num_rows)
    query_len = length[query_node]
    if spec.partial_rows:
        inside = rng.random(spec.num_rows) < 0.4
        query_len = np.where(inside, rng.integers(0, query_len + 1), query_len)
    runs, num_slots = _scatter_runs(length, spec.max_runs, rng)
    forest = Forest.from_nodes(parent, length, None, query_node, query_len, runs=runs)
    return TreeCase(forest=forest, num_slots=num_slots)


def _random_parents(rng: np.random.Generator, spec: RandomForestSpec) -> list[int]:
    parent = [-1] * spec.num_roots
    depth = [0] * spec.num_roots
    children = [0] * spec.num_roots
    # leaning to recent nodes makes deep trees, leaning to none makes wide ones
    lean = rng.random()
    while len(parent) < spec.max_nodes:
        recent = max(0, len(parent) - 4)
        node = int(rng.integers(recent if rng.random() < lean else 0, len(parent)))
        fan_out = int(rng.integers(1, spec.max_fan_out + 1))
        for _ in range(min(fan_out, spec.max_nodes - len(parent))):
            target = node if children[node] < spec.max_fan_out else int(rng.integers(len(parent)))
            if depth[target] >= spec.max_depth:
                target = int(rng.integers(spec.num_roots))
            parent.append(target)
            depth.append(depth[target] + 1)
            children.append(0)
            children[target] += 1
    return parent


def _shuffle_nodes(parent: list[int], rng: np.random.Generator) -> np.ndarray:
    """The same forest with its nodes renumbered at random: children may precede parents."""
    new_id = rng.permutation(len(parent))
    shuffled = np.empty(len(parent), dtype=np.int64)
    for node, above in enumerate(parent):
        shuffled[new_id[node]] = -1 if above < 0 else new_id[above]
    return shuffled


def _scatter_runs(
    length: np.ndarray, max_runs: int, rng: np.random.Generator
) -> tuple[list[list[tuple[int, int]]], int]:
    """Cut each node into runs and lay all of them out in random order with gaps between."""
    pieces: list[tuple[int, int]] = []  # (node, tokens), in token order per node
    for node, tokens in enumerate(length):
        num_cuts = int(rng.integers(0, max_runs))
        cuts = np.sort(rng.integers(0, tokens + 1, num_cuts))
        edges = np.unique(np.concatenate([[0], cuts, [tokens]]))
        pieces += [(node, int(size)) for size in np.diff(edges)]
    begin = np.zeros(len(pieces), dtype=np.int64)
    slot = int(rng.integers(0, 3))
    for index in rng.permutation(len(pieces)):
        begin[index] = slot
        # touching runs and gaps are both worth testing
        slot += pieces[index][1] + int(rng.integers(0, 3))
    runs: list[list[tuple[int, int]]] = [[] for _ in length]
    for (node, tokens), first in zip(pieces, begin.tolist(), strict=True):
        runs[node].append((first, tokens))
    return runs, slot + 2


def few_shot(branches: int = 16, prompt: int = 2000, generated: int = 64) -> TreeCase:
    """One prompt with `branches` private continuations, one row each."""
    parent = [-1] + [0] * branches
    return _laid_out(parent, [prompt] + [generated] * branches, range(1, branches + 1))


def chains(count: int = 8, length: int = 300) -> TreeCase:
    """Plain requests that share nothing."""
    return _laid_out([-1] * count, [length] * count, range(count))


def beam(width: int = 8, prompt: int = 256, steps: int = 12) -> TreeCase:
    """A beam after `steps` tokens: a line of one-token nodes with survivors forking late."""
    parent, length = [-1], [prompt]
    tips = [0]
    for step in range(steps):
        children = min(width, 2 ** (step + 1))
        parent += [tips[index % len(tips)] for index in range(children)]
        length += [1] * children
        tips = list(range(len(parent) - children, len(parent)))
    return _laid_out(parent, length, tips)


def thoughts(width: int = 5, depth: int = 3, prompt: int = 600, step: int = 40) -> TreeCase:
    """Tree of thoughts: at each level the best node gets `width` children."""
    parent, length, best = [-1], [prompt], 0
    tips: list[int] = []
    for _ in range(depth):
        first = len(parent)
        parent += [best] * width
        length += [step] * width
        tips += range(first, first + width)
        best = first
        tips.remove(first)
    return _laid_out(parent, length, [*tips, best])


def speculative(candidates: int = 64, prompt: int = 1000) -> TreeCase:
    """One sequence with a tree of one-token candidates, each of them a row."""
    parent = [-1] + [max(0, (index - 1) // 2) for index in range(1, candidates + 1)]
    return _laid_out(parent, [prompt] + [1] * candidates, range(1, candidates + 1))


def prefill(prompt: int = 512, chunk: int = 128) -> TreeCase:
    """The last `chunk` tokens of a prompt, one row per token."""
    forest = Forest.from_nodes(
        [-1], [prompt], [1], [0] * chunk, range(prompt - chunk + 1, prompt + 1)
    )
    return TreeCase(forest=forest, num_slots=prompt + 2)


NAMED: dict[str, Callable[[], TreeCase]] = {
    "few_shot": few_shot,
    "chains": chains,
    "beam": beam,
    "thoughts": thoughts,
    "speculative": speculative,
    "prefill": prefill,
}


def named(name: str) -> TreeCase:
    """A named shape at its default size. Raises InputError for a name that does not exist."""
    if name not in NAMED:
        raise InputError(expected_got("tree shape", ", ".join(NAMED), repr(name)))
    return NAMED[name]()


def _laid_out(parent: list[int], length: list[int], rows: Iterable[int]) -> TreeCase:
    """Nodes one after another in the pool, one free slot between them."""
    begin = np.cumsum([0] + [tokens + 1 for tokens in length[:-1]])
    forest = Forest.from_nodes(parent, length, begin, list(rows))
    return TreeCase(forest=forest, num_slots=int(begin[-1]) + length[-1] + 1)
