"""Trees to plan for: named shapes, `nodes per level x tokens per node`, recorded trees."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ramify.bench.attention.recorded import draft_state, recorded_state
from ramify.bench.attention.shapes import TreeShape, parse_levels
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest
from ramify.search.drafts import load_recorded_drafts
from ramify.search.recorded import RecordedTree, load_recorded_trees
from ramify.testing import trees


def forest_of_shape(shape: str) -> Forest:
    """A named shape of `ramify.testing.trees`, or a spec such as `1,20x4000,200`.

    Raises InputError for anything else.
    """
    if "x" in shape:
        return parse_levels(shape).forest(room=0)
    return trees.named(shape).forest


def recorded_shape(path: Path, tree: int, iteration: int, prompt_tokens: int = 1000) -> TreeShape:
    """What is live at one iteration of a workload file, which holds trees or drafts.

    Args:
        tree: which complete tree, or which record of drafts.
        iteration: its decode iteration, or its verification step.
        prompt_tokens: of drafts, whose prompts are recorded as text.
    Raises:
        InputError: no such file, tree or iteration.
    """
    name = f"{path.name} tree {tree} iteration {iteration}"
    if not _holds_drafts(path):
        return recorded_state(recorded_tree(path, tree), iteration, name)
    drafts = load_recorded_drafts(path)
    if not 0 <= tree < len(drafts.accepted) or not 0 <= iteration < len(drafts.accepted[tree]):
        allowed = f"one of {len(drafts.accepted)} records and its steps"
        raise InputError(expected_got("tree, iteration", allowed, f"{tree}, {iteration}"))
    context = prompt_tokens + sum(drafts.accepted[tree][:iteration])
    return draft_state(drafts, context, name)


def _holds_drafts(path: Path) -> bool:
    """Drafts are one JSON object, trees a list; what is neither is left to the loaders."""
    try:
        return isinstance(msgspec.json.decode(path.read_bytes()), dict)
    except (OSError, msgspec.MsgspecError):
        return False


def recorded_tree(path: Path, tree: int) -> RecordedTree:
    """One complete tree of a workload file. Raises InputError when there is none of that number."""
    recorded = load_recorded_trees(path)
    if not 0 <= tree < len(recorded):
        allowed = f"a number below {len(recorded)}, the complete trees of {path.name}"
        raise InputError(expected_got("tree", allowed, tree))
    return recorded[tree]
