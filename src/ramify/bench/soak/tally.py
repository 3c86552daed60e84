"""What a run has counted so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ramify.core.outputs import Usage


@dataclass(kw_only=True)
class Tally:
    """Counters of a run; re-checks have their own part in it."""

    requests: Counter[str] = field(default_factory=Counter)  # by kind
    errors: Counter[str] = field(default_factory=Counter)  # expected ones, by type
    aborts: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    rechecked_branches: int = 0
    rechecked_tokens: int = 0
    rechecked_beams: int = 0
    near_ties: int = 0  # branches that went another way where two tokens were as good
    worst_logprob_difference: float = 0.0

    def count(self, usage: Usage) -> None:
        """Add what a request cost."""
        self.generated_tokens += usage.generated_tokens
        self.computed_tokens += usage.computed_tokens
        self.cached_tokens += usage.cached_tokens
        self.preemptions += usage.preemptions

    def differs_by(self, difference: float) -> None:
        """Note a difference between two ways to the same log-probability."""
        self.worst_logprob_difference = max(self.worst_logprob_difference, difference)
