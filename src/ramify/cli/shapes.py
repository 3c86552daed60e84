"""Trees to plan for: named shapes, `nodes per level x tokens per node`, recorded trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest
from ramify.search.recorded import RecordedTree, load_recorded_trees
from ramify.testing import trees


def forest_of_shape(shape: str) -> Forest:
    """A named shape of `ramify.testing.trees`, or a spec such as `1,20x4000,200`.

    Raises InputError for anything else.
    """
    if "x" in shape:
        return forest_of_levels(*_parse_levels(shape))
    return trees.named(shape).forest


def forest_of_levels(num_nodes: list[int], tokens: list[int]) -> Forest:
    """Levels of equal nodes, children spread evenly over the level above, one row per leaf.

    Several nodes on the first level are as many trees.
    """
    parent: list[int] = []
    length: list[int] = []
    above = range(0)
    for count, node_tokens in zip(num_nodes, tokens, strict=True):
        first = len(parent)
        for index in range(count):
            parent.append(above[index * len(above) // count] if above else -1)
        length += [node_tokens] * count
        above = range(first, len(parent))
    begin = np.cumsum([0, *length[:-1]])
    return Forest.from_nodes(parent, length, begin, list(above))


def forest_of_recorded(recorded: RecordedTree, iteration: int) -> Forest:
    """What is live at one decode iteration: a row per growing node, at the token it computes.

    Raises InputError for an iteration the tree does not have.
    """
    if not 0 <= iteration < recorded.num_iterations:
        allowed = f"a number below {recorded.num_iterations}"
        raise InputError(expected_got("iteration", allowed, iteration))
    live = [
        node
        for node in recorded.nodes
        if node.value and node.start <= iteration <= recorded.cut_after[node.id]
    ]
    index = {node.id: place for place, node in enumerate(live)}
    parent = [-1] * len(live)
    for node in live:
        for child in node.children:
            if child in index:
                parent[index[child]] = index[node.id]
    length = [min(node.end, iteration) - node.start + 1 for node in live]
    begin = np.cumsum([0, *length[:-1]])
    rows = [index[node.id] for node in live if iteration <= node.end]
    return Forest.from_nodes(parent, length, begin, rows)


def recorded_tree(path: Path, tree: int) -> RecordedTree:
    """One complete tree of a workload file. Raises InputError when there is none of that number."""
    recorded = load_recorded_trees(path)
    if not 0 <= tree < len(recorded):
        allowed = f"a number below {len(recorded)}, the complete trees of {path.name}"
        raise InputError(expected_got("tree", allowed, tree))
    return recorded[tree]


def _parse_levels(shape: str) -> tuple[list[int], list[int]]:
    nodes, _, tokens = shape.partition("x")
    try:
        counts = [int(word) for word in nodes.split(",")]
        lengths = [int(word) for word in tokens.split(",")]
    except ValueError:
        counts, lengths = [], []
    is_regular = len(counts) == len(lengths) and min(counts, default=0) > 0
    if not is_regular or min(lengths, default=-1) < 0:
        expected = f"one of {', '.join(trees.NAMED)}, or levels like 1,20x4000,200"
        raise InputError(expected_got("shape", expected, repr(shape)))
    return counts, lengths
