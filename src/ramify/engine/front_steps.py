"""Steps of fronts alone: assembled by array operations, and written down once they are launched.

While nothing but beams goes on, the rows of a step follow from those of the step before and from
what was selected. Between the choice and the next launch the device is idle, so no node of a tree
is touched there: slots come out of reservations and lines claimed for it, and the forest grows as
arrays. The trees are edited, old paths pruned, requests charged and the next step prepared while
the device computes, with its ranking queued already.

A step of anything else, or of other fronts than before, takes the general path (engine.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.cache import Growth, Lines, Tips, tips_of
from ramify.engine import beams
from ramify.engine.batch import StepBatch
from ramify.engine.best import QueuedBest
from ramify.engine.charge import charge_rows
from ramify.engine.live import LiveTrees
from ramify.engine.parallel import AnyExecutor
from ramify.engine.request import Beams, Request, Task

IntArray = npt.NDArray[np.int64]


class _Prepared(NamedTuple):
    """Fronts that are computed, and where their trees stood then."""

    fronts: list[Beams]
    tips: Tips  # of all fronts, one after another
    positions: IntArray  # [B] of each branch's next token
    clock: int


class FrontStep(NamedTuple):
    """A step that is ready to run."""

    before: _Prepared
    batch: StepBatch  # the rows of the fronts, one after another
    growth: Growth
    lacks_slot: npt.NDArray[np.bool_]  # [n] rows whose slot was not reserved
    lines: Lines  # theirs

    @property
    def fronts(self) -> list[Beams]:
        """Whose step it is."""
        return self.before.fronts


class FrontSteps:
    """Takes steps of the fronts it was last prepared for."""

    def __init__(self, live: LiveTrees, executor: AnyExecutor) -> None:
        self._live = live
        self._executor = executor
        self._prepared: _Prepared | None = None

    # ── behind a launch: get ready for the next step ─────────────────────────────────────────────
    def prepare(self, tasks: Sequence[Task]) -> None:
        """Look at the trees as they are now, if the tasks are fronts that a step computes whole."""
        self._prepared = None
        fronts = [task for task in tasks if isinstance(task, Beams) and task.num_ranked == 0]
        paths = [tip for front in fronts for tip in front.tips]
        if len(fronts) < len(self._live.tasks) or len(paths) > beams.MAX_RANKED:
            return
        tips = tips_of(paths)
        if tips is None:
            return
        positions = np.array([tip.length for tip in paths], dtype=np.int64)
        self._keep(fronts, tips, positions)

    def _prepare_behind(self, step: FrontStep) -> None:
        """The same by arrays, behind a step that let no path go that was held before it."""
        paths = [tip for front in step.fronts for tip in front.tips]
        tips = step.before.tips.pruned(step.growth, paths)
        self._keep(step.fronts, tips, step.batch.positions + 1)

    def _keep(self, fronts: list[Beams], tips: Tips, positions: IntArray) -> None:
        cache = self._live.cache
        cache.evict(len(positions) - cache.num_free)  # the next step may need as many lines
        self._prepared = _Prepared(fronts, tips, positions, cache.clock)

    # ── before a launch: what the device waits for ───────────────────────────────────────────────
    def assemble(self) -> FrontStep | None:
        """The step of what was selected; None where it has to take the general path."""
        prepared, self._prepared = self._prepared, None
        if prepared is None or not self._is_current(prepared):
            return None
        branch, is_kept = _chosen(prepared.fronts)
        cache, tips = self._live.cache, prepared.tips
        if len(branch) > len(is_kept) or cache.num_free < len(branch):
            return None
        lacks_slot = tips.lacks_slot(branch)
        lines = cache.claim_lines(int(lacks_slot.sum()))
        slots = tips.next_slot[branch]
        slots[lacks_slot] = lines.begin
        tokens = [token for front in prepared.fronts for token in beams.action_of(front).tokens]
        growth = tips.grown(branch, slots, is_kept)
        batch = StepBatch(
            token_ids=np.array(tokens, dtype=np.int64),
            positions=prepared.positions[branch],
            slots=slots,
            logit_rows=np.arange(len(branch)),
            forest=growth.forest,
        )
        return FrontStep(prepared, batch, growth, lacks_slot, lines)

    def _is_current(self, prepared: _Prepared) -> bool:
        """Whether all there is to do is what was selected of these fronts, and no tree changed."""
        fronts, live = prepared.fronts, self._live
        is_all = len(live.tasks) == len(fronts) and prepared.clock == live.cache.clock
        return is_all and all(live.tasks.get(f.id) is f and not f.is_edited for f in fronts)

    # ── the step ─────────────────────────────────────────────────────────────────────────────────
    def run(self, step: FrontStep) -> set[Request]:
        """Run a step and rank its rows; returns the requests, each with a `Ranked`."""
        fronts, rows = step.fronts, _rows_of(step.fronts)
        try:
            queued = self._launch(step, rows)
        except BaseException:
            self._live.cache.return_lines(step.lines)
            raise
        # where a held path is let go, nodes may merge of which the arrays do not know
        are_held = all(f.front.held.issubset(beams.action_of(f).held) for f in fronts)
        self._write(step)
        self._charge(step, rows)
        if are_held:
            self._prepare_behind(step)
        else:
            self.prepare(fronts)
        for front, ranking in zip(fronts, queued, strict=True):
            beams.take_best(front, ranking)
            beams.answer(self._live, front)
        return {front.request for front in fronts}

    def _launch(self, step: FrontStep, rows: Sequence[slice]) -> list[QueuedBest]:
        """Queue all that the device is to do, before the host writes down what it does."""
        logits = self._executor.run(step.batch)
        parts = zip(step.fronts, rows, strict=True)
        return [beams.queue_best(self._live, front, logits[part]) for front, part in parts]

    def _write(self, step: FrontStep) -> None:
        """Edit the trees as the step has it, its tokens computed."""
        cache, fronts = self._live.cache, step.fronts
        for front in fronts:
            beams.edit(self._live, front)
        tips = [tip for front in fronts for tip in front.tips]
        cache.lay(tips, step.lacks_slot, step.lines)
        for front in fronts:
            beams.write(self._live, front)

    def _charge(self, step: FrontStep, rows: Sequence[slice]) -> None:
        forest, executor = step.batch.forest, self._executor
        token_bytes, method = executor.kv_bytes_per_token, executor.method_in_use
        for front, part in zip(step.fronts, rows, strict=True):
            charge_rows(front.request.usage, forest, part, token_bytes=token_bytes, method=method)


def _rows_of(fronts: Sequence[Beams]) -> list[slice]:
    """The rows of each front in a step of all."""
    ends = np.cumsum([len(beams.action_of(front).nodes) for front in fronts]).tolist()
    return [slice(begin, end) for begin, end in pairwise([0, *ends])]


def _chosen(fronts: Sequence[Beams]) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """For each new branch the branch it continues, and which of those stay for others, of all."""
    branches: list[int] = []
    kept: list[bool] = []
    for front in fronts:
        action, nodes = beams.action_of(front), front.front.nodes
        place = dict(zip(nodes, range(len(kept), len(kept) + len(nodes)), strict=True))
        branches += [place[node] for node in action.nodes]
        kept += [node in action.held for node in nodes] if action.held else [False] * len(nodes)
    return np.array(branches, dtype=np.int64), np.array(kept, dtype=np.bool_)
