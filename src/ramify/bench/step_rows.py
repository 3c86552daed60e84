"""Rows of `ramify bench decode --shape` and `ramify bench beam`."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.bench.env import Environment


@dataclass(frozen=True, kw_only=True)
class TimedRow:
    """Generation timed from outside, medians over repeats; times are None where nothing ran.

    A step is (time for N tokens - time for 1) / (N - 1), so prefill and set-up are not in it.
    """

    provider: str
    model: str
    device: str
    dtype: str
    prompt_tokens: int
    new_tokens: int  # N
    repeats: int
    floor_ms: float  # what a step must read, at the rate of a copy
    step_ms: float | None
    first_token_ms: float | None  # the time for 1 token: until every branch has its first
    tok_per_s: float | None  # of all branches, at that step
    pct_of_floor: float | None  # floor over step: 100 would be a copy
    peak_bytes: int | None  # of GPU memory, weights and pool included; None on a CPU
    reason: str | None  # why nothing ran
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class StepRow(TimedRow):
    """One way to decode one shape. From `method` on, what only Ramify can tell of itself."""

    question: str = "step"
    branches: int
    trees: int
    floor_weight_bytes: int
    floor_kv_bytes: int  # unique tokens half way through the generation
    copy_gb_per_s: float
    method: str | None = None
    backend: str | None = None
    host_us: float | None = None  # of a step, the host at work, not waiting; None on a CPU
    launches: float | None = None  # kernels and copies of a step, those of graphs included
    idle_share: float | None = None  # of steps under the profiler, in which the GPU ran nothing
    first_run_s: float | None = None  # of the warm-up beyond a run: compiling, capturing graphs
    startup_weights_s: float | None = None
    startup_pool_s: float | None = None
    startup_kernels_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class BeamRow(TimedRow):
    """Beam search over one prompt; its floor counts the weights and the prompt's KV."""

    question: str = "beam"
    beam_width: int
    are_beams_equal: bool | None = None  # to Ramify's; None for itself, or with other weights
