"""Steps of branches that speculate, one behind the other: the device waits for drafts, not books.

While nothing but such branches goes on, the rows of a step follow from those of the step before,
from the tokens drawn in it and from the drafts behind these. So a step is launched as soon as the
tokens of the one before are read; they are written down, slots are booked and requests charged
while the device computes.

A branch that ends, is not worth a draft any more or lacks slots, and whatever else there is to do,
ends such a run: the last step is written down, and the general path (engine.py) goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ramify.engine.batch import Block, StepBatch
from ramify.engine.charge import charge_step
from ramify.engine.live import LiveTrees
from ramify.engine.parallel import AnyExecutor
from ramify.engine.record import Recorder, Wanted
from ramify.engine.request import Grow, Request, Task, cursor_of
from ramify.engine.speculation.branch import Guess, drafting_of
from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.graft import Graft
from ramify.engine.speculation.judge import charge_accepted, pays
from ramify.engine.speculation.next_step import Ahead, Kept, NextStep, Rules, next_step
from ramify.engine.speculation.speculator import Speculator
from ramify.engine.speculation.verify import Outcome, discard, guess_of, outcome_of

Ready = Sequence[tuple[Task, Wanted, bool]]
Fail = Callable[[Request, Exception], None]


class _Read(NamedTuple):
    """A step whose tokens are on the host."""

    tokens: list[int]  # [rows]
    logprobs: list[float]  # [rows]
    seconds: float  # from its launch on


def draft_tasks(live: LiveTrees, ready: Ready) -> list[Grow] | None:
    """A step's branches, if they all speculate, are all there is to do, and end by tokens alone.

    The step must draw from all its rows: the tips in order, then the drafts (Recorder.loop_draws).
    """
    tasks = [task for task, _, _ in ready if isinstance(task, Grow)]
    if not len(tasks) == len(ready) == len(live.tasks):
        return None
    may_go_on = all(
        task.tokens_to_draft == 0 and not task.params.stop_strings and cursor_of(task).node.is_tip
        for task in tasks
    )
    return tasks if may_go_on and any(guess_of(task) for task in tasks) else None


class DraftSteps:
    """A run of verifying steps of fixed branches, from one that was launched by others on.

    Attributes:
        batch: the rows of the step in flight.
        is_over: nothing is in flight, and all is written down.
    """

    def __init__(
        self,
        live: LiveTrees,
        recorder: Recorder,
        executor: AnyExecutor,
        speculator: Speculator,
        batch: StepBatch,
        ready: Ready,
        tasks: list[Grow],
        clock: Callable[[], float],
        fail: Fail,
    ) -> None:
        self.batch = batch
        self.is_over = False
        self._live = live
        self._recorder = recorder
        self._executor = executor
        self._speculator = speculator
        self._ready = ready
        self._tasks = tasks
        self._clock = clock
        self._fail = fail
        self._cursors = [cursor_of(task) for task in tasks]
        self._stops = [frozenset(live.rules.stop_ids(task.params)) for task in tasks]
        self._rules = Rules(recorder.rules_of(ready))
        self._num_drafted = speculator.hand_over()
        self._launched_s = clock()
        self._errors: list[tuple[Request, Exception]] = []
        self._fresh: list[list[int]] = []  # [B] tokens that paths have and that are not written
        self._is_judged = False  # the step that was read last
        self._ahead = Ahead.of(self._cursors, speculator.most_tokens)

    # ── one step ─────────────────────────────────────────────────────────────────────────────────
    def step(self) -> set[Request]:
        """Read the step in flight, launch the next if one may follow; returns who has news."""
        read = self._read()
        try:
            found = self._found(read)
            following = None if found is None else self._following(found)
            launched_s = self._clock()
            is_launched = following is not None and self._executor.draw(
                following.batch, following.draws
            )
        except BaseException:
            self._end(read)
            raise
        if not is_launched:
            return self._end(read)
        assert following is not None
        try:
            self._write(read)
            self._book(following)
        except BaseException:
            self._break_off()
            raise
        self._launched_s = launched_s
        self._ahead = Ahead.of(self._cursors, self._speculator.most_tokens)
        return set()

    def close(self) -> set[Request]:
        """Read what is in flight and write it down; returns requests with news."""
        if self.is_over:
            return set()
        return self._end(self._read())

    def _read(self) -> _Read:
        self._fresh, self._is_judged = [], False
        try:
            tokens, logprobs = self._executor.collect()
        except BaseException:
            self._break_off()
            raise
        return _Read(tokens, logprobs, self._clock() - self._launched_s)

    # ── before a launch: what the device waits for ───────────────────────────────────────────────
    def _found(self, read: _Read) -> list[Outcome] | None:
        """What the branches accept; None where one of them ends with it or is to go on alone."""
        found: list[Outcome] = []
        for row, (task, stops) in enumerate(zip(self._tasks, self._stops, strict=True)):
            found.append(outcome_of(task, row, read.tokens))
            fresh = found[-1].fresh
            if len(fresh) >= self._live.most_tokens(task) or not stops.isdisjoint(fresh):
                return None
        return found if self._judge(read, found) else None

    def _judge(self, read: _Read, found: Sequence[Outcome]) -> bool:
        """Whether all branches are to go on with drafts."""
        num_kept = [len(one.places) for one in found]
        generated = [
            len(task.request.tree[task.node].token_ids) + len(one.fresh)
            for task, one in zip(self._tasks, found, strict=True)
        ]
        step = len(self.batch.token_ids), self._num_drafted, read.seconds
        self._speculator.judge.judge(self._tasks, num_kept, generated, step)
        self._is_judged = True
        return all(map(pays, self._tasks, generated))

    def _following(self, found: Sequence[Outcome]) -> NextStep | None:
        """The step behind what was accepted; None where it has to take the general path."""
        ahead, tasks = self._ahead, self._tasks
        kept = Kept.of(ahead, [one.places for one in found])
        back = sum(ahead.num_lent) - sum(len(one.places) for one in found)
        available = self._live.cache.available + back
        share = self._speculator.share(len(tasks), len(tasks), available)
        if share < 1 or min(map(len, kept.line)) <= share:
            return None
        self._fresh = fresh = [one.fresh for one in found]
        if self._executor.hidden is not None:
            lengths = [n + len(new) for n, new in zip(ahead.length.tolist(), fresh, strict=True)]
            rows = [one.row for one in found]
            self._speculator.show(tasks, lengths, rows, self._executor.hidden)
        answers = self._speculator.guess_on(tasks, fresh, share)
        parts = zip(tasks, answers, strict=True)
        self._errors = [(t.request, why) for t, why in parts if isinstance(why, Exception)]
        if self._errors:
            return None
        drafts = [draft for draft in answers if isinstance(draft, DraftTree)]
        return next_step(ahead, kept, fresh, drafts, self._rules)

    # ── behind it: the books ─────────────────────────────────────────────────────────────────────
    def _write(self, read: _Read) -> None:
        """Write down what was drawn."""
        for task in self._tasks:
            drafting_of(task).drawn_row = None
        self._recorder.record_loop(read.tokens, read.logprobs, self._ready)
        if not self._is_judged:
            step = len(self.batch.token_ids), self._num_drafted, read.seconds
            self._speculator.judge.judge_written(self._tasks, step)
        charge_accepted(self._tasks, self._executor.kv_bytes_per_token, self._fresh)

    def _book(self, step: NextStep) -> None:
        """Book the slots of a step that was launched, and charge for it."""
        cache, num_tips = self._live.cache, len(self._tasks)
        sizes = [len(draft.tokens) for draft in step.drafts]
        first_rows = accumulate(sizes, initial=num_tips)
        tips: list[Block] = []
        grafts: list[Block] = []
        for row, (task, draft, loan, first) in enumerate(
            zip(self._tasks, step.drafts, step.loans, first_rows, strict=False)
        ):
            cursor, owner = self._cursors[row], task.request.id
            node, end, size = cursor.node, cursor.offset, len(draft.tokens)
            assert task.id in self._live.tasks, "a branch that goes on has not ended"
            cache.reserve_slots(node, end)
            cache.mark_computed(node, end)
            assert cache.slot_of(node, end - 1) == step.batch.slots[row], "as was foretold"
            tips.append(Block(node, end - 1, end, row, owner, is_probe=False))
            if size:
                slots = cache.lend_slots(cursor, size)
                assert np.array_equal(slots, loan), "a loan is what was foretold"
                graft = Graft(row, first, draft.tokens, cursor.length, draft.shape, slots)
                grafts.append(Block(node, end, end + size, first, owner, False, graft))
                drafting_of(task).guess = Guess(draft, first)
        self.batch, self._num_drafted = step.batch, sum(sizes)
        token_bytes, method = self._executor.kv_bytes_per_token, self._executor.method_in_use
        blocks, requests = [*tips, *grafts], self._live.requests
        charge_step(blocks, step.batch, requests, token_bytes=token_bytes, method=method)

    def _break_off(self) -> None:
        """Forget the step in flight: tips that were not written down are computed again."""
        discard(self._live.cache, self._tasks)
        self.is_over = True

    def _end(self, read: _Read) -> set[Request]:
        """Write down a step that none of the run follows."""
        self.is_over = True
        self._write(read)
        self._speculator.observe(self._ready, self._executor.hidden)
        for request, error in self._errors:
            self._fail(request, error)
        return {task.request for task in self._tasks}
