"""Trees to plan for: named shapes, `nodes per level x tokens per node`, recorded trees."""

from __future__ import annotations

from pathlib import Path

from ramify.bench.attention.shapes import parse_levels, recorded_state
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest
from ramify.search.recorded import RecordedTree, load_recorded_trees
from ramify.testing import trees


def forest_of_shape(shape: str) -> Forest:
    """A named shape of `ramify.testing.trees`, or a spec such as `1,20x4000,200`.

    Raises InputError for anything else.
    """
    if "x" in shape:
        return parse_levels(shape).forest(room=0)
    return trees.named(shape).forest


def forest_of_recorded(recorded: RecordedTree, iteration: int) -> Forest:
    """What is live at one decode iteration; see `recorded_state`."""
    return recorded_state(recorded, iteration).forest(room=0)


def recorded_tree(path: Path, tree: int) -> RecordedTree:
    """One complete tree of a workload file. Raises InputError when there is none of that number."""
    recorded = load_recorded_trees(path)
    if not 0 <= tree < len(recorded):
        allowed = f"a number below {len(recorded)}, the complete trees of {path.name}"
        raise InputError(expected_got("tree", allowed, tree))
    return recorded[tree]
