"""Rows of `ramify bench search`: one form of one search."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.bench.env import Environment

HANDLES = "handles"
RESEND = "resend"
RESEND_N = "resend n"


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """One algorithm, grown by node handles or resent as text; counts are of one search.

    Forms: `handles` is the engine's own tree; `resend` sends a request for every branch, `resend n`
    one for all branches of an expansion. Of the handles, `saving` is None.
    """

    question: str  # always "search"
    algorithm: str
    form: str
    model: str
    method: str
    backend: str
    device: str
    dtype: str
    width: int
    depth: int
    step_tokens: int
    prompt_tokens: int
    repeats: int
    wall_s: float  # median, from the prompt's text to the finished search
    steps: int
    requests: int
    generated_tokens: int
    computed_tokens: int
    prefill_tokens: int  # computed, but not to sample a branch's next token
    saving: float | None  # share of this form's wall time that handles save, mean over repeats
    saving_low: float | None  # its 95 % interval over the repeats, by Student's t
    saving_high: float | None
    num_nodes: int
    num_nodes_apart: int  # whose place or tokens differ from those of the handles' tree
    environment: Environment
