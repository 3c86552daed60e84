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
from ramify.engine.speculation.branch import Guess
from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.graft import Graft
from ramify.engine.speculation.next_step import Ahead, Kept, NextStep, Rules, next_step
from ramify.engine.speculation.speculator import Speculator
from ramify.engine.speculation.verify import accepted, discard, guess_of

Ready = Sequence[tuple[Task, Wanted, bool]]
Fail = Callable[[Request, Exception], None]


class _Read(NamedTuple):
    """A step whose tokens are on the host."""

    tokens: list[int]  # [rows]
    logprobs: np.ndarray  # [rows] float32
    seconds: float  # from its launch on


class _Found(NamedTuple):
    """What B branches accepted of a step."""

    fresh: list[list[int]]  # [B] their new tokens
    places: list[list[int]]  # [B] of accepted draft tokens, in the draft's lines
    rows: list[int]  # [B] the row that the newest token was drawn from


def draft_tasks(live: LiveTrees, ready: Ready) -> list[Grow] | None:
    """A step's branches, if they all speculate, are all there is to do, and end by tokens alone.

    The step must draw from all its rows: the tips in order, then the drafts (Recorder.loop_draws).
    """
    tasks = [task for task, _, _ in ready if isinstance(task, Grow)]
    if not len(tasks) == len(ready) == len(live.tasks):
        return None
    may_go_on = all(
        task.drafting is not None and not task.params.stop_strings and cursor_of(task).node.is_tip
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
        self._ahead = self._look_ahead()

    # ── one step ─────────────────────────────────────────────────────────────────────────────────
    def step(self) -> set[Request]:
        """Read the step in flight, launch the next if one may follow; returns requests with news."""
        read = self._read()
        try:
            found = self._found(read.tokens)
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
        assert found is not None and following is not None
        self._write(read, found.fresh)
        self._book(following)
        self._launched_s = launched_s
        self._ahead = self._look_ahead()
        return set()

    def close(self) -> set[Request]:
        """Read what is in flight and write it down; returns requests with news."""
        return set() if self.is_over else self._end(self._read())

    def _read(self) -> _Read:
        assert self._executor.loop is not None, "the step was drawn in a loop"
        try:
            tokens, logprobs = self._executor.loop.collect()
        except BaseException:
            discard(self._live.cache, self._tasks)
            self.is_over = True
            raise
        return _Read(tokens.tolist(), logprobs, self._clock() - self._launched_s)

    # ── before a launch: what the device waits for ───────────────────────────────────────────────
    def _found(self, tokens: list[int]) -> _Found | None:
        """What the branches accept; None where one of them ends with it or is to go on alone."""
        if self._ahead is None:
            return None
        found = _Found([], [], [])
        for row, task in enumerate(self._tasks):
            guess, fresh, last = guess_of(task), [tokens[row]], row
            places: list[int] = []
            if guess is not None:
                tree, first = guess.tree, guess.first
                kept = accepted(tree, [tokens[row], *tokens[first : first + len(tree.tokens)]])
                fresh += [tokens[first + index] for index in kept]
                places = tree.shape.place[kept].tolist() if kept else places
                last = first + kept[-1] if kept else last
            is_last = len(fresh) >= self._live.most_tokens(task)
            if is_last or not self._stops[row].isdisjoint(fresh):
                return None
            for column, value in zip(found, (fresh, places, last), strict=True):
                column.append(value)  # type: ignore[arg-type]
        return found

    def _following(self, found: _Found) -> NextStep | None:
        """The step behind what was accepted; None where it has to take the general path."""
        ahead, tasks = self._ahead, self._tasks
        assert ahead is not None
        kept = Kept.of(ahead, found.places)
        back = sum(ahead.num_lent) - sum(map(len, found.places))
        available = self._live.cache.available + back
        share = self._speculator.share(len(tasks), len(tasks), available)
        if share < 1 or min(map(len, kept.line)) <= share:
            return None
        if self._executor.hidden is not None:
            grown = zip(ahead.length.tolist(), found.fresh, strict=True)
            lengths = [length + len(fresh) for length, fresh in grown]
            self._speculator.show(tasks, lengths, found.rows, self._executor.hidden)
        drafts: list[DraftTree] = []
        for task, draft in zip(
            tasks, self._speculator.guess_on(tasks, found.fresh, share), strict=True
        ):
            if isinstance(draft, Exception):
                self._errors.append((task.request, draft))
            else:
                drafts.append(draft)
        if self._errors:
            return None
        return next_step(ahead, kept, found.fresh, drafts, self._rules)

    # ── behind it: the books ─────────────────────────────────────────────────────────────────────
    def _write(self, read: _Read, fresh: Sequence[Sequence[int]] = ()) -> None:
        """Write down what was drawn.

        Args:
            fresh: the branches' new tokens, if their paths have them.
        """
        for task in self._tasks:
            assert task.drafting is not None
            task.drafting.drawn_row = None
        self._recorder.record_loop(read.tokens, read.logprobs.tolist(), self._ready)
        rows, token_bytes = len(self.batch.token_ids), self._executor.kv_bytes_per_token
        self._speculator.close_step(
            self._tasks, rows, self._num_drafted, read.seconds, token_bytes, fresh
        )

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
                assert task.drafting is not None
                task.drafting.guess = Guess(draft, first)
        self.batch, self._num_drafted = step.batch, sum(sizes)
        token_bytes, method = self._executor.kv_bytes_per_token, self._executor.method_in_use
        blocks, requests = [*tips, *grafts], self._live.requests
        charge_step(blocks, step.batch, requests, token_bytes=token_bytes, method=method)

    def _look_ahead(self) -> Ahead | None:
        """Get ready for the next step; None where a branch is to go on without drafts."""
        if not all(map(self._speculator.pays, self._tasks)):
            return None
        return Ahead.of(self._cursors, self._speculator.most_tokens)

    def _end(self, read: _Read) -> set[Request]:
        """Write down a step that none of the run follows."""
        self.is_over = True
        self._write(read)
        self._speculator.observe(self._ready, self._executor.hidden)
        for request, error in self._errors:
            self._fail(request, error)
        return {task.request for task in self._tasks}
