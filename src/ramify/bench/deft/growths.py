"""DeFT's workloads as whole generations: trees that the engine grows from prompt to last token.

few-shot     branches of one prompt through plain sampling
reasoning    recorded searches, branches grown and cut in the recorded iterations
speculative  one branch by recorded drafts, one verified a step, of which what was accepted stays
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from ramify.bench.deft.workloads import (
    DRAFT_PROMPT,
    FEW_SHOT_PROMPT,
    FEW_SHOT_TOKENS,
    WIDTHS,
    recordings,
    workload_name,
)
from ramify.bench.speculation.decoding import hot
from ramify.bench.workloads import DecodeWorkload, FewShot, Recorded
from ramify.core.errors import InputError, expected_got
from ramify.search.controller import Controller
from ramify.search.drafts import RecordedDrafts, load_recorded_drafts
from ramify.search.recorded import RecordedTree, load_recorded_trees
from ramify.search.sample import Sample

WARM_UP_TOKENS = 8
WARM_UP_PATH = 128  # tokens of the longest path of a search that only warms up


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One tree to grow; `controller(seed)` makes what grows it, once for each time."""

    prompt_tokens: int
    longest_path: int
    num_steps: int  # after the prefill
    most_rows: int = 0  # of these steps, where they differ; 0: all are alike
    drafts: RecordedDrafts | None = None  # verified step by step, instead of plain decoding
    controller: Callable[[int], Controller]


@dataclass(frozen=True, kw_only=True)
class EngineWorkload:
    """Trees to grow one after another, and what to grow before anything is timed."""

    name: str
    trees: tuple[Growth, ...]
    warm_ups: tuple[Growth, ...]

    @property
    def longest_path(self) -> int:
        """Tokens on the longest path of all trees."""
        return max(tree.longest_path for tree in self.trees)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of the workloads is run; default lengths are the paper's, but for drafts."""

    few_shot_prompt: int = FEW_SHOT_PROMPT
    few_shot_tokens: int = FEW_SHOT_TOKENS
    num_trees: int = 1  # of a recorded search
    longest_path: int | None = None  # searches are shortened to it; None: as recorded
    draft_tokens: int = 300  # the paper generates 5000

    def __post_init__(self) -> None:
        for name, least in (("num_trees", 1), ("draft_tokens", 1), ("few_shot_tokens", 2)):
            if getattr(self, name) < least:
                raise InputError(expected_got(name, f"at least {least}", getattr(self, name)))


def engine_workloads(
    folder: Path | None, sizes: Sizes, only: tuple[str, ...] = ()
) -> list[EngineWorkload]:
    """Few-shot at the paper's widths and, from a folder, its recordings; of these `only`, if given.

    Raises InputError for a folder without recordings, a file of another format, a size that cannot
    be, or a name in `only` that there is not.
    """
    makers = {f"few_shot_b{width}": partial(_few_shot, width, sizes) for width in WIDTHS}
    if folder is not None:
        searches, drafts = recordings(folder)
        makers |= {workload_name(path): partial(_reasoning, path, sizes) for path in searches}
        loaded = sorted(map(load_recorded_drafts, drafts), key=lambda found: len(found.parent))
        makers |= {
            f"spec_t{len(found.parent)}": partial(_speculative, found, sizes) for found in loaded
        }
    for name in only:
        if name not in makers:
            raise InputError(expected_got("only", f"any of {', '.join(makers)}", repr(name)))
    return [
        EngineWorkload(name=name, trees=trees, warm_ups=warm_ups)
        for name, make in makers.items()
        if name in only or not only
        for trees, warm_ups in [make()]
    ]


_Growths = tuple[tuple[Growth, ...], tuple[Growth, ...]]


def _few_shot(branches: int, sizes: Sizes) -> _Growths:
    return (_branches(sizes.few_shot_prompt, branches, sizes.few_shot_tokens),), (
        _branches(sizes.few_shot_prompt, branches, WARM_UP_TOKENS),
    )


def _reasoning(path: Path, sizes: Sizes) -> _Growths:
    trees = load_recorded_trees(path)[: sizes.num_trees]
    if not trees:
        raise InputError(expected_got(str(path), "a complete tree", "none"))
    if sizes.longest_path is not None:
        trees = [tree.scaled(sizes.longest_path) for tree in trees]
    prompt = _branches(trees[0].root.value, 1, WARM_UP_TOKENS)
    return tuple(map(_search, trees)), (prompt, _search(trees[0].scaled(WARM_UP_PATH)))


def _speculative(drafts: RecordedDrafts, sizes: Sizes) -> _Growths:
    return (_draft(drafts, sizes.draft_tokens),), (_draft(drafts, WARM_UP_TOKENS),)


def _branches(prompt: int, branches: int, generated: int) -> Growth:
    shape = FewShot(prompt_tokens=prompt, branches=branches, new_tokens=generated)
    return _growth(shape)


def _search(tree: RecordedTree) -> Growth:
    changes = sorted({max(node.start, 1) for node in tree.nodes})
    most_rows = max(tree.rows_at(iteration) for iteration in changes)
    return _growth(Recorded(tree=tree, title="search"), most_rows)


def _growth(workload: DecodeWorkload, most_rows: int = 0) -> Growth:
    return Growth(
        prompt_tokens=workload.prompt_tokens,
        longest_path=workload.longest_path,
        num_steps=workload.num_steps,
        most_rows=most_rows,
        controller=lambda seed: workload.controller(),
    )


def _draft(drafts: RecordedDrafts, generated: int) -> Growth:
    num_steps = len(drafts.contexts(0, DRAFT_PROMPT, generated))
    # the prompt brings a token, then every step as many as were accepted
    new_tokens = 1 + sum(islice(cycle(drafts.accepted[0]), num_steps))
    return Growth(
        prompt_tokens=DRAFT_PROMPT,
        longest_path=DRAFT_PROMPT + new_tokens + len(drafts.parent),
        num_steps=num_steps,
        drafts=drafts,
        controller=lambda seed: Sample(hot(new_tokens, seed)),
    )
