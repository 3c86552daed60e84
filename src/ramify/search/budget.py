"""What a search may spend, and how many branches of an expansion still fit into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.tree import TreeView


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one search; None leaves a side open.

    Tokens are those sampled on branches, pruned ones included; what a judge reads is not sampled.
    Seconds are looked at between expansions, so the last one may end a little later. Raises
    InputError when a limit is not a positive number of its kind.
    """

    tokens: int | None = None
    nodes: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "nodes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InputError(expected_got(f"budget.{name}", "an int >= 1", repr(value)))
        seconds = self.seconds
        if seconds is None:
            return
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not is_number or not math.isfinite(seconds) or seconds <= 0:
            raise InputError(expected_got("budget.seconds", "a number > 0", repr(seconds)))

    @property
    def is_limited(self) -> bool:
        """Whether any limit is set, so that a search may go on until it is reached."""
        return any(limit is not None for limit in (self.tokens, self.nodes, self.seconds))

    def tokens_left(self, tree: TreeView) -> int | None:
        """Tokens that may still be sampled; None when tokens are not limited."""
        return None if self.tokens is None else max(self.tokens - tree.generated_tokens, 0)

    def nodes_left(self, tree: TreeView) -> int | None:
        """Nodes that may still be added below the root; None when nodes are not limited."""
        if self.nodes is None:
            return None
        return max(self.nodes - sum(1 for _ in tree) + 1, 0)

    def exhausted(self, tree: TreeView) -> bool:
        """Whether any limit is reached."""
        out_of_time = self.seconds is not None and tree.elapsed_s >= self.seconds
        return out_of_time or self.tokens_left(tree) == 0 or self.nodes_left(tree) == 0


class Allowance:
    """What is left of a budget while several expansions are started at once.

    Each `take` sets aside the most its branches can use, so branches that grow side by side can
    never exceed the budget together. `tokens_due` and `nodes_due` are set aside for branches that
    are growing already: the tokens they may still take, and nodes that are not in the tree yet.
    """

    def __init__(
        self, budget: Budget, tree: TreeView, *, tokens_due: int = 0, nodes_due: int = 0
    ) -> None:
        exhausted = budget.exhausted(tree)
        tokens, nodes = budget.tokens_left(tree), budget.nodes_left(tree)
        self._tokens = None if tokens is None else max(tokens - tokens_due, 0)
        self._nodes = None if nodes is None else max(nodes - nodes_due, 0)
        if exhausted:
            self._tokens = self._nodes = 0

    def take(
        self, k: int, params: SamplingParams, expected_tokens: int
    ) -> tuple[int, SamplingParams]:
        """How many of k branches fit, and their parameters with `max_tokens` clipped to fit.

        `expected_tokens` is what a branch is believed to need: near the end of the budget fewer
        branches are started rather than branches too short to end. Returns 0 when not one fits.
        """
        if self._nodes is not None:
            k = min(k, self._nodes)
        cap = params.max_tokens
        if self._tokens is not None and self._tokens < k * cap:
            k = min(k, self._tokens // min(expected_tokens, cap))
            cap = min(cap, self._tokens // k) if k else cap
        if self._nodes is not None:
            self._nodes -= k
        if self._tokens is not None:
            self._tokens -= k * cap
        return k, replace(params, max_tokens=cap, min_tokens=min(params.min_tokens, cap))
