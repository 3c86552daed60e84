"""Rounds until the time is up or something is wrong."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ramify import LLM
from ramify.bench.env import environment
from ramify.bench.soak.recheck import TOLERANCES, Recheck
from ramify.bench.soak.report import SoakReport
from ramify.bench.soak.round import Round
from ramify.bench.soak.tally import Tally
from ramify.bench.soak.watchdog import Watchdog
from ramify.core.errors import InputError, expected_got

Progress = Callable[[str], None]
PROGRESS_EVERY_S = 10.0
PATIENCE_S = 120.0
"""Without a step for so long, an engine stands still; compiling kernels takes part of it."""

MOST_STEPS = 50_000
"""Of a round; they take some thousands."""

MIB = 2**20
LEAST_SLOTS = 90


@dataclass(frozen=True, kw_only=True)
class Soak:
    """A run to make.

    Args:
        minutes: when no further round begins.
        rounds: most rounds; None: as many as there is time for.
        first_round: number of the first one, to repeat a round of another run.
        tolerance: of log-probabilities; None: by the dtype, see recheck.TOLERANCES.
    """

    llm: LLM
    model_name: str
    minutes: float = 1.0
    seed: int = 0
    first_round: int = 0
    rounds: int | None = None
    tolerance: float | None = None
    commit: str | None = None  # of the sources, where they are a copy
    progress: Progress = lambda text: None

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("first_round", 0), ("rounds", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(expected_got(name, f"at least {least}", value))
        if not 0 < self.minutes < 1e6:
            raise InputError(expected_got("minutes", "a number > 0", self.minutes))
        limits = self.llm.engine.limits
        if min(limits.num_slots, limits.max_context) < LEAST_SLOTS:
            got = f"{limits.num_slots} slots, context {limits.max_context}"
            raise InputError(expected_got("pool and context", f"at least {LEAST_SLOTS}", got))


def soak(run: Soak) -> SoakReport:
    """Make a run; it ends at the first thing that is wrong, which the report names."""
    return _Runner(run).run()


class _Runner:
    def __init__(self, run: Soak) -> None:
        self._run = run
        self._engine = run.llm.engine
        self._tally = Tally()
        tolerance = run.tolerance
        if tolerance is None:
            tolerance = TOLERANCES[run.llm.config.dtype]
        self._recheck = Recheck(llm=run.llm, tally=self._tally, tolerance=tolerance)
        self._first_step = self._engine.num_steps
        self._rounds = 0
        self._memory = self._memory_begin = (0.0, 0.0)

    def run(self) -> SoakReport:
        """Rounds, then the report."""
        begin, reported_s, violation = time.perf_counter(), 0.0, None
        while violation is None and self._rounds != self._run.rounds:
            seconds = time.perf_counter() - begin
            if seconds >= 60.0 * self._run.minutes:
                break
            violation = self._round(self._run.first_round + self._rounds)
            if violation is None:
                self._rounds += 1
                self._measure_memory()
            if seconds - reported_s >= PROGRESS_EVERY_S:
                reported_s = seconds
                self._run.progress(self._line(seconds))
        return self._report(time.perf_counter() - begin, violation)

    def _round(self, number: int) -> str | None:
        """Run a round; returns what was wrong with it."""
        run = self._run
        try:
            with Watchdog(self._engine, patience_s=PATIENCE_S, most_steps=MOST_STEPS) as watchdog:
                Round(run.llm, run.seed, number, self._tally, self._recheck).run()
        except KeyboardInterrupt:
            if watchdog.reason is None:
                raise
            return f"{watchdog.reason}\n{traceback.format_exc()}"
        except Exception:  # a soak is there to meet any error that nobody expects
            return traceback.format_exc()
        return None

    def _measure_memory(self) -> None:
        gpu = torch.cuda.memory_allocated() if self._run.llm.config.device.startswith("cuda") else 0
        self._memory = _resident_bytes() / MIB, gpu / MIB
        if self._rounds == 1:
            self._memory_begin = self._memory

    def _line(self, seconds: float) -> str:
        tally = self._tally
        return (
            f"{seconds / 60:.1f} min: round {self._run.first_round + self._rounds}, "
            f"{tally.requests.total()} requests, {tally.generated_tokens} tokens, "
            f"{tally.preemptions} preemptions, {tally.aborts} aborts, "
            f"{tally.rechecked_branches} branches re-checked, "
            f"{tally.near_ties} near ties, log-probabilities within "
            f"{tally.worst_logprob_difference:.1e}"
        )

    def _report(self, seconds: float, violation: str | None) -> SoakReport:
        run, tally, config = self._run, self._tally, self._run.llm.config
        grown_mib, grown_gpu_mib = (
            end - begin for begin, end in zip(self._memory_begin, self._memory, strict=True)
        )
        return SoakReport(
            question="soak",
            model=run.model_name,
            device=config.device,
            dtype=config.dtype,
            method=config.method,
            run_ahead=bool(config.run_ahead),
            cuda_graphs=config.cuda_graphs,
            num_slots=self._engine.limits.num_slots,
            seed=run.seed,
            first_round=run.first_round,
            rounds=self._rounds,
            seconds=seconds,
            requests=dict(tally.requests),
            errors=dict(tally.errors),
            aborts=tally.aborts,
            preemptions=tally.preemptions,
            steps=self._engine.num_steps - self._first_step,
            generated_tokens=tally.generated_tokens,
            computed_tokens=tally.computed_tokens,
            cached_tokens=tally.cached_tokens,
            tok_per_s=tally.generated_tokens / seconds,
            rechecked_branches=tally.rechecked_branches,
            rechecked_tokens=tally.rechecked_tokens,
            rechecked_beams=tally.rechecked_beams,
            near_ties=tally.near_ties,
            worst_logprob_difference=tally.worst_logprob_difference,
            tolerance=self._recheck.tolerance,
            grown_mib=grown_mib,
            grown_gpu_mib=grown_gpu_mib,
            violation=violation,
            violation_round=run.first_round + self._rounds if violation else None,
            violation_step=self._engine.num_steps - self._first_step if violation else None,
            environment=environment(run.commit),
        )


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    path = Path("/proc/self/statm")
    if not path.is_file():
        return 0
    return int(path.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
