"""One round: a crowd of jobs in random order, then nobody, then re-checks.

After a round the pool is as empty as at the start, so a round depends on its seed and number alone
(but for aborts from other threads, whose moment nobody can choose).
"""

from __future__ import annotations

import threading

import numpy as np

from ramify import LLM
from ramify.bench.soak.branch import Branch, check_branch
from ramify.bench.soak.by_hand import by_hand, pinned
from ramify.bench.soak.calls import interrupted, misuse, scores
from ramify.bench.soak.draws import Draws
from ramify.bench.soak.jobs import Job
from ramify.bench.soak.kinds import kinds
from ramify.bench.soak.recheck import Recheck
from ramify.bench.soak.tally import Tally
from ramify.core.errors import IntegrityError, expected_got

MOST_JOBS = 24
MOST_RECHECKS = 8
ABORTED = 0.12
"""Share of the jobs that somebody wants to abort."""

LONGEST_WAIT_S = 0.02
"""Before an abort from another thread."""


class Round:
    """Runs round number `number` of a seed on an idle engine. Raises whatever goes wrong."""

    def __init__(self, llm: LLM, seed: int, number: int, tally: Tally, recheck: Recheck) -> None:
        self._llm = llm
        self._engine = llm.engine
        self._tally = tally
        self._recheck = recheck
        self._draws = Draws(llm, np.random.default_rng([seed, number]))
        self._live: list[Job] = []
        self._threads: list[threading.Timer] = []

    def run(self) -> None:
        """Everything from the first job to the last re-check."""
        jobs = self._make()
        try:
            self._crowd(jobs)
        finally:
            for thread in self._threads:
                thread.join()
        self._engine.settle()  # aborts that came too late
        self._check_empty()
        vocab_size = self._draws.vocab_size
        branches: list[Branch] = []
        for job in jobs:
            branches += job.check(self._tally)
        for branch in branches:
            check_branch(branch, vocab_size)
        self._again(jobs, branches)
        self._check_empty()

    # ── the crowd ────────────────────────────────────────────────────────────────────────────────
    def _make(self) -> list[Job]:
        """All jobs of the round; at most one tree may hold on to its part of the pool."""
        draws = self._draws
        makers = list(kinds(draws, self._engine.limits.eos_token_ids))
        makers += [(2.0, by_hand), (1.0, scores), (1.0, misuse), (0.5, interrupted)]
        weights = np.array([weight for weight, _ in makers])
        chosen = draws.rng.choice(len(makers), draws.count(1, MOST_JOBS), p=weights / weights.sum())
        jobs: list[Job] = [makers[i][1](draws) for i in chosen]
        if draws.chance(0.3):
            jobs.insert(draws.count(0, len(jobs)), pinned(draws))
        return jobs

    def _crowd(self, jobs: list[Job]) -> None:
        """Start jobs, let them go on, step, abort, evict: in random order until all are over."""
        draws, engine = self._draws, self._engine
        waiting = jobs[::-1]
        hurry, pace = draws.pick([0.1, 0.5, 1.0]), draws.pick([1, 2, 8])
        while waiting or self._live:
            if waiting and (not self._live or draws.chance(hurry)):
                self._start(waiting.pop())
            else:
                draws.pick(self._live).go_on()
            for _ in range(draws.count(0, pace)):
                engine.step(is_watched=draws.chance(0.2))
            if draws.chance(0.1):
                engine.cache.check_integrity()
            if draws.chance(0.02):
                engine.cache.evict(draws.count(1, draws.num_slots))
            self._live = [job for job in self._live if not job.is_over]

    def _start(self, job: Job) -> None:
        job.start(self._llm)
        self._tally.requests[job.kind] += 1
        self._live.append(job)
        if not job.is_over and self._draws.chance(ABORTED):
            self._abort(job)

    def _abort(self, job: Job) -> None:
        """Now, or from another thread in a moment."""
        request_id = job.request_id
        assert request_id is not None, "a job that goes on has a request"
        job.is_aborted = True
        self._tally.aborts += 1
        if self._draws.chance(0.3):
            if not self._llm.abort(request_id):
                raise IntegrityError(expected_got("abort", "a live request", job.kind))
            return
        wait_s = float(self._draws.rng.uniform(0.0, LONGEST_WAIT_S))
        self._threads.append(threading.Timer(wait_s, self._llm.abort, [request_id]))
        self._threads[-1].start()

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────
    def _again(self, jobs: list[Job], branches: list[Branch]) -> None:
        """Some branches and beam searches once more, each alone."""
        order = self._draws.rng.permutation(len(branches))[:MOST_RECHECKS]
        for index in order:
            self._recheck.branch(branches[index])
        for job in jobs:
            searched = job.beams()
            if searched is not None and self._draws.chance(0.5):
                self._recheck.beams(*searched)

    def _check_empty(self) -> None:
        """Nobody holds a slot any more; also leaves the pool without a prefix cache."""
        engine, cache = self._engine, self._engine.cache
        if engine.live.requests or engine.live.tasks or engine.has_work:
            got = f"{list(engine.live.requests)}, tasks {list(engine.live.tasks)}"
            raise IntegrityError(expected_got("live requests", "none", got))
        cache.check_integrity()
        num_slots = engine.limits.num_slots
        if cache.available != num_slots or cache.cursors:
            got = f"{cache.available} of {num_slots} slots, {len(cache.cursors)} live paths"
            raise IntegrityError(expected_got("pool", "every slot available, no live path", got))
        cache.evict(num_slots)
        if cache.num_free != num_slots:
            raise IntegrityError(expected_got("free slots", num_slots, cache.num_free))
        cache.check_integrity()
