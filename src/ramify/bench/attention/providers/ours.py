"""TreeAttention, one provider per method."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ramify.attention import TreeAttention
from ramify.attention.plan.cost import Tuning
from ramify.bench.attention.problem import Problem
from ramify.bench.attention.providers.base import Absent, Facts, Prepared
from ramify.core.errors import BackendUnavailable


class Ours:
    """A method on the best backend of the device, or on the one named.

    Args:
        tuning: what plans are cut for; default what the backend knows of the device.
    """

    def __init__(self, method: str, backend: str = "auto", tuning: Tuning | None = None) -> None:
        self.method = method
        self.backend = backend
        self.tuning = tuning
        self._op: TreeAttention | None = None

    def prepare(self, problem: Problem) -> Prepared:
        """One TreeAttention for all problems."""
        op = self._open(problem)
        # a forest keeps what it derives: plan gets one that nobody has looked at
        forest = replace(problem.forest)

        def run() -> Tensor:
            return op.run(problem.q, problem.k, problem.v)[0]

        return Prepared(plan=lambda: op.plan(forest), run=run, facts=lambda: _facts(op))

    def _open(self, problem: Problem) -> TreeAttention:
        if self._op is None:
            heads = problem.heads
            try:
                self._op = TreeAttention(
                    heads.num_q_heads,
                    heads.num_kv_heads,
                    heads.head_dim,
                    dtype=problem.dtype,
                    device=problem.device,
                    method=self.method,
                    backend=self.backend,
                )
            except BackendUnavailable as error:
                raise Absent(str(error)) from error
            is_fallback = self.backend == "auto" and self._op.backend == "reference"
            if is_fallback:
                raise Absent(self._op.backend_reason)
            if self.tuning is not None:
                # users have no say in this: it only ever makes a plan slower
                self._op._backend.tuning = self.tuning
        return self._op


def _facts(op: TreeAttention) -> Facts:
    report = op.explain()
    return Facts(
        backend=op.backend,
        method=report.method,
        kv_bytes_read=report.kv_bytes_read,
        partial_bytes=report.partial_bytes,
    )
