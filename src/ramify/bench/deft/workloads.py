"""DeFT's workloads as sequences of decode steps, each of which is a forest.

few-shot     a prompt of 4000 tokens, b branches of 400: 399 steps, the first token is the prefill's
reasoning    tree-of-thoughts searches that were recorded; the paper takes the first ten of a file
speculative  recorded draft trees with the tokens that were accepted: every draft sees its ancestors
             only (the paper's own runs hang all drafts below the root); a prompt of 1000 tokens
             and 5000 generated, recorded lengths repeated (the paper goes on with random ones)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ramify.bench.attention.recorded import draft_state, recorded_state
from ramify.bench.attention.shapes import TreeShape, levels
from ramify.core.errors import InputError, expected_got
from ramify.search.drafts import load_recorded_drafts
from ramify.search.recorded import RecordedTree, load_recorded_trees

WIDTHS = (20, 30, 50)
FEW_SHOT_PROMPT, FEW_SHOT_TOKENS = 4000, 400
DRAFT_PROMPT, DRAFT_TOKENS = 1000, 5000
PAPER_TREES = 10


@dataclass(frozen=True, kw_only=True)
class Part:
    """The decode steps of one tree: `state(step)` for steps 0 to num_steps - 1."""

    num_steps: int
    state: Callable[[int], TreeShape]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One or several trees, one after another; numbers are quoted per tree."""

    name: str
    parts: tuple[Part, ...]
    is_smooth: bool  # grows evenly, so that few steps stand for all

    @property
    def num_steps(self) -> int:
        """Steps of all trees."""
        return sum(part.num_steps for part in self.parts)

    def states(self) -> Iterator[TreeShape]:
        """The forests of all steps in order."""
        for part in self.parts:
            yield from map(part.state, range(part.num_steps))

    def state(self, step: int) -> TreeShape:
        """The forest of one step, counted through all trees."""
        for part in self.parts:
            if step < part.num_steps:
                return part.state(step)
            step -= part.num_steps
        raise IndexError(f"{self.name} has {self.num_steps} steps")


def few_shot(
    branches: int, prompt: int = FEW_SHOT_PROMPT, generated: int = FEW_SHOT_TOKENS
) -> Workload:
    """A prompt with `branches` answers that grow by a token a step."""

    def state(step: int) -> TreeShape:
        return levels([1, branches], [prompt, step + 1])

    part = Part(num_steps=generated - 1, state=state)
    return Workload(name=f"few_shot_b{branches}", parts=(part,), is_smooth=True)


def reasoning(path: Path, num_trees: int = PAPER_TREES) -> Workload:
    """The first complete trees of a recording, all of them if `num_trees` is 0.

    Iteration 0 ends the prompt and is not decoding.
    """

    trees = load_recorded_trees(path)[: num_trees or None]
    parts = tuple(
        Part(num_steps=tree.num_iterations - 1, state=partial(_recorded, tree)) for tree in trees
    )
    return Workload(name=workload_name(path), parts=parts, is_smooth=False)


def _recorded(tree: RecordedTree, step: int) -> TreeShape:
    return recorded_state(tree, step + 1)


def speculative(path: Path, prompt: int = DRAFT_PROMPT, generated: int = DRAFT_TOKENS) -> Workload:
    """The first record of a file of drafts; those of DeFT's files are all alike."""
    drafts = load_recorded_drafts(path)
    contexts = drafts.contexts(0, prompt, generated)
    part = Part(num_steps=len(contexts), state=lambda step: draft_state(drafts, contexts[step]))
    return Workload(name=f"spec_t{len(drafts.parent)}", parts=(part,), is_smooth=True)


def workloads(folder: Path | None, num_trees: int = PAPER_TREES) -> list[Workload]:
    """Few-shot at the paper's widths and, from a folder, its recordings.

    Args:
        folder: holds files named as DeFT publishes them, `*ToT.json` and `APPS_tree_size*.json`.
    Raises:
        InputError: no such files in the folder, or one that is not of its format.
    """
    found = [few_shot(branches) for branches in WIDTHS]
    if folder is None:
        return found
    searches, drafts = recordings(folder)
    found += [reasoning(path, num_trees) for path in searches]
    return found + sorted((speculative(path) for path in drafts), key=_size)


def recordings(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of recorded searches and of recorded drafts. Raises InputError if there are none."""
    searches = sorted(folder.glob("*ToT.json"))
    drafts = sorted(folder.glob("APPS_tree_size*.json"))
    if not searches and not drafts:
        wanted = "a folder with *ToT.json or APPS_tree_size*.json"
        raise InputError(expected_got("workloads", wanted, folder))
    return searches, drafts


def workload_name(path: Path) -> str:
    """What tables call the searches of a file."""
    return path.stem.removesuffix("ToT")


def _size(workload: Workload) -> int:
    return len(workload.state(0).query_node)
