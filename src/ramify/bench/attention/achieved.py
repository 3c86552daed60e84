"""What one layer of a planned forest really reads and takes, to set beside its prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ramify.attention import TreeAttention
from ramify.bench.attention.timers import Timer
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest


@dataclass(frozen=True, kw_only=True)
class Achieved:
    """One layer: bytes as the backend counted them, and its time without the plan."""

    backend: str
    timing: str  # graph (replay, cold L2) or wall
    repeats: int
    kv_bytes_read: int
    p20_us: float
    p50_us: float
    p80_us: float


def measure_plan(
    op: TreeAttention, forest: Forest, timer: Timer, *, repeats: int = 30, seed: int = 0
) -> Achieved:
    """Run the plan that `op` has for `forest` on random q, k and v. Resets its counters.

    Raises InputError: no repeats.
    """
    if repeats < 1:
        raise InputError(expected_got("repeats", "at least 1", repeats))
    q, k, v = _random_inputs(op, forest, seed)
    op.reset_counters()
    op.run(q, k, v)
    kv_bytes_read = op.kv_bytes_read
    run, _ = timer.ready(lambda: op.run(q, k, v))
    samples = timer.measure({"layer": run}, repeats)["layer"]
    del run  # a graph holds memory of the pool that it was captured in
    timer.release()
    p20_us, p50_us, p80_us = np.percentile(samples, [20, 50, 80]).tolist()
    return Achieved(
        backend=op.backend,
        timing=timer.kind,
        repeats=repeats,
        kv_bytes_read=kv_bytes_read,
        p20_us=p20_us,
        p50_us=p50_us,
        p80_us=p80_us,
    )


def _random_inputs(op: TreeAttention, forest: Forest, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """q [Q, Hq, D]; k, v [num_slots, Hkv, D], the pool just large enough for the forest."""
    generator = torch.Generator(device=op.device).manual_seed(seed)
    num_slots = int((forest.run_begin + forest.run_len).max(initial=1))

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=op.device, dtype=op.dtype)

    pool = (num_slots, op.heads.num_kv_heads, op.heads.head_dim)
    q = draw(forest.num_rows, op.heads.num_q_heads, op.heads.head_dim)
    return q, draw(*pool).to(op.kv_dtype), draw(*pool).to(op.kv_dtype)
