"""The same branches, a token each, step after step: the loop without its books.

While nothing but decoding goes on, a step's inputs are what the step before left on the device, so
the host has no part in them. It launches step t + 1 while step t runs and reads the tokens of t
then, one step late. A branch that stopped in t has computed a token too many in t + 1, which nobody
ever hears of. Tokens are written into the trees when somebody will look: when a branch ends, all of
its request's, and at the end everybody's. Penalties count tokens where they are drawn, and what is
told of a token beside its log-probability comes with it. Bans of stops hold for a whole run, which
ends where the first would be lifted. Grammars need the host between two tokens: steps that follow
one are waited for.

Source: asynchronous scheduling as in NanoFlow (Zhu et al. 2024) and vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramify.core.forest import Forest
from ramify.engine.batch import StepBatch
from ramify.engine.charge import BranchCharges
from ramify.engine.decode_loop import MOST_IN_FLIGHT
from ramify.engine.drawn_steps import DrawnSteps
from ramify.engine.draws import DrawTable
from ramify.engine.live import LiveTrees
from ramify.engine.parallel import AnyExecutor, AnyLoop
from ramify.engine.record import Recorder, Wanted
from ramify.engine.request import Grow, Request, Task, cursor_of, num_generated
from ramify.engine.sample import SampleRow

LEAST_STEPS = 4
"""Steps that must be possible: starting costs about as much as one."""

LEAST_ROOM, MOST_ROOM = 256, 1024
"""Slots a branch gets ahead: the device rests while a new run is made ready."""

NO_TOKEN = -1


def make_room(tasks: Sequence[Grow], live: LiveTrees) -> None:
    """Give branches that decode together equal room ahead: the first without any stops them all.

    As much as they have grown already, and no more of the pool than half of what is free.
    """
    cache = live.cache
    grown = max(cursor_of(task).length - cursor_of(task).node.start for task in tasks)
    room = min(max(grown, LEAST_ROOM), MOST_ROOM, cache.num_free // (2 * len(tasks)))
    for task in tasks:
        cache.make_room_ahead(cursor_of(task), min(room, live.most_tokens(task)))


def steady_tasks(
    live: LiveTrees, recorder: Recorder, ready: Sequence[tuple[Task, Wanted, bool]]
) -> tuple[list[Grow], list[SampleRow]] | None:
    """A step's branches and their draws if they are all there is to do; they get room ahead."""
    if len(ready) != len(live.tasks):
        return None
    draws = recorder.steady_draws(ready)
    if draws is None:
        return None
    tasks = [task for task, _, _ in ready if isinstance(task, Grow)]
    make_room(tasks, live)
    return tasks, draws


def open_steady(
    live: LiveTrees,
    recorder: Recorder,
    executor: AnyExecutor,
    batch: StepBatch,
    tasks: Sequence[Grow],
    draws: Sequence[SampleRow],
) -> SteadyDecode | None:
    """Start decoding without the books; None where it is not worth it or has no room."""
    if executor.loop is None:
        return None
    token_bytes, method = executor.kv_bytes_per_token, executor.method_in_use
    charges = BranchCharges(batch, token_bytes=token_bytes, method=method)
    steady = SteadyDecode(live, recorder, executor.loop, batch, tasks, draws, charges)
    return steady if steady.is_worth_it and steady.start() else None


class SteadyDecode:
    """A run of decode steps of fixed branches, from one assembled batch on."""

    def __init__(
        self,
        live: LiveTrees,
        recorder: Recorder,
        loop: AnyLoop,
        batch: StepBatch,
        tasks: Sequence[Grow],
        draws: Sequence[SampleRow],
        charges: BranchCharges,
    ) -> None:
        self._live = live
        self._recorder = recorder
        self._loop = loop
        self._batch = batch
        self._tasks = tasks
        self._draws = DrawTable.of(draws)
        self._charges = charges
        self._cursors = [cursor_of(task) for task in tasks]
        # [rows] tokens of the path when the batch was assembled, the first step's own included
        self._begin = [cursor.length for cursor in self._cursors]
        self._limits = np.array([live.most_tokens(task) for task in tasks])
        self._stops = _stop_table([live.rules.stop_ids(task.params) for task in tasks])
        # the step after the last is the first that drafts again, or that may draw a stop
        until_draft = [n - 1 for task in tasks if (n := task.tokens_to_draft) is not None]
        until_old = [
            task.params.min_tokens - num_generated(task) - 1
            for task, draw in zip(tasks, draws, strict=True)
            if draw.banned
        ]
        room = (live.cache.room_ahead(cursor) for cursor in self._cursors)
        self._room = min([*room, *until_draft, *until_old])
        self._alive = np.ones(len(tasks), dtype=bool)
        self._watched = np.array([bool(task.params.stop_strings) for task in tasks])
        num_top = [task.params.logprobs for task in tasks]
        self._written = [0] * len(tasks)  # tokens that are in the books
        self._num_launched = 0
        self._look_ahead()
        self._drawn = DrawnSteps(max(self._most_steps, 0), num_top)  # of each step that was read

    # ── whether and how long ─────────────────────────────────────────────────────────────────────
    def _look_ahead(self) -> None:
        """Note what follows from which branches are alive: it holds until one of them ends."""
        limits = self._limits[self._alive]
        # steps that slots and limits allow, and that of the first limit, counted from the first
        self._most_steps = min(1 + self._room, int(limits.max(initial=0)))
        self._next_limit = int(limits.min(initial=self._most_steps))
        self._is_text_read = bool(self._watched[self._alive].any())
        self._stops[~self._alive] = NO_TOKEN

    @property
    def is_worth_it(self) -> bool:
        """Whether enough steps can follow."""
        return self._most_steps >= LEAST_STEPS

    @property
    def is_current(self) -> bool:
        """Whether these branches are still all there is to do, and most of what is computed."""
        alive = [task.id for task, lives in zip(self._tasks, self._alive, strict=True) if lives]
        if not alive or 2 * len(alive) < len(self._tasks):  # rows that ended cost what others do
            return False
        return self._live.tasks.keys() == set(alive)

    # ── one step ─────────────────────────────────────────────────────────────────────────────────
    def start(self) -> bool:
        """Launch the first step; False where the loop has no room for it."""
        if not self._loop.load(self._batch, self._draws.kind):
            return False
        self._loop.start(self._draws)
        self._num_launched = 1
        return True

    def step(self, *, is_watched: bool) -> set[Request]:
        """Launch a step if one may follow, then read the oldest; returns requests with news.

        Args:
            is_watched: somebody looks at the trees after every step.
        """
        if self._num_launched < self._most_steps and self._loop.num_in_flight < MOST_IN_FLIGHT:
            self._loop.launch(self._grown)
            self._num_launched += 1
        return self._collect(is_watched=is_watched)

    def _grown(self) -> Forest:
        """The forest of the step to be launched."""
        return self._batch.forest.grown(self._num_launched)

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight and nothing can follow."""
        return not self._loop.num_in_flight and self._num_launched >= self._most_steps

    def close(self) -> set[Request]:
        """Read what is in flight and write everything down; returns requests with news."""
        self._drop_forgotten()
        news: set[Request] = set()
        while self._loop.num_in_flight:
            news |= self._collect(is_watched=False)
        self._write(_rows(self._alive))
        return news

    def _collect(self, *, is_watched: bool) -> set[Request]:
        """Read a step's tokens; write down those of requests in which a branch ended."""
        drawn = self._loop.collect()
        self._drawn.add(drawn)
        is_looked_at = is_watched or self._is_text_read
        is_limit = self._drawn.num_steps >= self._next_limit
        if not (is_looked_at or is_limit or self._may_stop(drawn.tokens)):  # nearly always
            return set()
        is_stop = (drawn.tokens[:, None] == self._stops).any(axis=1)
        ends = is_stop | (self._drawn.num_steps >= self._limits)
        due = self._alive & (ends | self._watched | is_watched)
        if not due.any():
            return set()
        before = self._alive.copy()
        self._write(_rows(due))
        ended = {self._tasks[row].request for row in _rows(before & ~self._alive)}
        if ended:
            alive = _rows(self._alive)
            self._write([row for row in alive if self._tasks[row].request in ended])
            self._look_ahead()
        return ended

    def _may_stop(self, tokens: np.ndarray) -> bool:
        """Whether one of a step's tokens [rows] ends its row."""
        stops = self._stops
        return bool(stops.size and np.count_nonzero(tokens[:, None] == stops))

    def _drop_forgotten(self) -> None:
        """Branches that were pruned or whose request ended have no books any more."""
        for row in _rows(self._alive):
            if self._tasks[row].id not in self._live.tasks:
                self._alive[row] = False

    # ── the books ────────────────────────────────────────────────────────────────────────────────
    def _write(self, rows: Sequence[int]) -> None:
        """Write rows' tokens into cache and trees; a row that ends with them is alive no more."""
        end = self._drawn.num_steps
        behind = [row for row in rows if self._written[row] < end]
        begins = [self._written[row] for row in behind]
        runs = self._drawn.runs(behind, begins)
        for row, begin, run in zip(behind, begins, runs, strict=True):
            task = self._tasks[row]
            self._note_slots(row, run.tokens, end)
            self._charges.charge(task.request, row, begin, end)
            self._written[row] = end
            self._recorder.record_run(task, run)
            self._alive[row] = task.id in self._live.tasks

    def _note_slots(self, row: int, tokens: list[int], end: int) -> None:
        """Append the tokens; all but the last of them have their K and V in the room ahead."""
        cache, cursor = self._live.cache, self._cursors[row]
        cache.append(cursor, tokens)
        node = cursor.node
        num_computed = self._begin[row] - node.start + end - 1
        cache.reserve_slots(node, num_computed)
        cache.mark_computed(node, num_computed)


def _rows(mask: np.ndarray) -> list[int]:
    rows: list[int] = np.flatnonzero(mask).tolist()
    return rows


def _stop_table(stops: Sequence[Sequence[int]]) -> np.ndarray:
    """[rows, most] int64, the tokens that end each row."""
    table = np.full((len(stops), max(map(len, stops))), NO_TOKEN, dtype=np.int64)
    for row, tokens in enumerate(stops):
        table[row, : len(tokens)] = tokens
    return table
