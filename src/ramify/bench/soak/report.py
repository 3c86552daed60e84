"""What a soak run has found, as one row."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.bench.env import Environment


@dataclass(frozen=True, kw_only=True)
class SoakReport:
    """Counts of a run, and the first thing that was wrong with it."""

    question: str  # always "soak"
    model: str
    device: str
    dtype: str
    method: str
    run_ahead: bool
    cuda_graphs: bool
    num_slots: int
    seed: int
    first_round: int
    rounds: int  # completed
    seconds: float
    requests: dict[str, int]  # by kind
    errors: dict[str, int]  # expected ones, by type
    aborts: int
    preemptions: int
    steps: int
    generated_tokens: int
    computed_tokens: int
    cached_tokens: int
    tok_per_s: float
    rechecked_branches: int
    rechecked_tokens: int
    rechecked_beams: int
    near_ties: int
    worst_logprob_difference: float
    tolerance: float
    grown_mib: float  # of host memory, from the end of the first round on
    grown_gpu_mib: float
    violation: str | None
    violation_round: int | None
    violation_step: int | None
    environment: Environment
