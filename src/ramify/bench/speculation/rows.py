"""Rows of `ramify bench speculation`: a drafter on prompts, a replayed recording, one step."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.bench.env import Environment


@dataclass(frozen=True, kw_only=True)
class _Where:
    model: str
    device: str
    dtype: str
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class DrafterRow(_Where):
    """One drafter over all prompts, greedily; `drafter` is `plain` for decoding without one.

    Numbers are None where the drafter could not be made, and `reason` says why.
    """

    question: str = "speculation"
    drafter: str
    prompts: int
    together: int  # prompts that decode at once
    is_adaptive: bool  # drafting pauses for branches where it does not pay
    draft_tokens: int  # the most of a draft
    different: int | None = None  # prompts whose tokens are not those of plain decoding
    generated_tokens: int | None = None
    steps: int | None = None  # of the engine, prompts included
    verified_steps: int | None = None  # branches and steps in which a draft was verified
    tokens_per_step: float | None = None  # of those
    acceptance: float | None = None  # share of the drafted tokens
    wall_s: float | None = None
    speedup: float | None = None  # of the wall time, over plain decoding
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReplayRow(_Where):
    """Decoding with recorded draft trees, of which as much is accepted as the recording says."""

    question: str = "speculation_replay"
    recording: str
    rows_per_step: int  # the branch's tip and its draft
    prompt_tokens: int
    generated_tokens: int
    recorded_per_step: float  # tokens that a step brings, mean of the whole recording
    tokens_per_step: float  # as it came about
    plain_step_ms: float  # medians
    verify_step_ms: float
    speedup: float  # tokens per time over plain decoding, at the median steps
    num_different: int  # tokens that plain decoding did not draw


@dataclass(frozen=True, kw_only=True)
class VerifyRow(_Where):
    """A step that verifies a draft tree, against a plain step and what attention must take."""

    question: str = "speculation_step"
    rows_per_step: int
    context: int
    tokens_per_step: float
    plain_step_ms: float  # of one row
    verify_step_ms: float
    attention_floor_ms: float  # unique KV, q and out, or the products, of all layers
    ratio: float  # of the verifying step over the sum of the other two
    rows_step_ms: float  # a plain step of as many rows, over a short context
    rows_ratio: float  # of the verifying step over the sum of that and the floor
