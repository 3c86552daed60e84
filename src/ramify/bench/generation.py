"""Times of whole generations, and the step that follows from two lengths of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from ramify.bench.attention.ceilings import copy_bytes_per_s
from ramify.bench.attention.timers import timer_for
from ramify.bench.timer import median_of
from ramify.core.errors import InputError, expected_got

Generate = Callable[[int], object]
"""Makes every branch generate so many tokens, and returns when the host has them."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Runs of 1 token and of `new_tokens`, in pairs, after a warm-up of the longer one."""

    new_tokens: int
    short_s: Sequence[float]
    long_s: Sequence[float]
    warm_up_s: float
    peak_bytes: int | None  # of GPU memory; None on a CPU

    @property
    def step_ms(self) -> float:
        """Median of (time for N tokens - time for 1) / (N - 1)."""
        pairs = zip(self.long_s, self.short_s, strict=True)
        return median_of([(long - short) / (self.new_tokens - 1) * 1e3 for long, short in pairs])

    @property
    def first_token_ms(self) -> float:
        """Median time for 1 token of every branch."""
        return median_of(self.short_s) * 1e3

    @property
    def first_run_s(self) -> float:
        """What the warm-up took beyond a run, at least 0."""
        return max(0.0, self.warm_up_s - median_of(self.long_s))


def time_generation(
    generate: Generate, *, new_tokens: int, repeats: int, device: torch.device
) -> Generation:
    """Time a generation. Raises InputError for fewer than 2 tokens or no repeat."""
    if new_tokens < 2 or repeats < 1:
        got = f"{new_tokens}, {repeats}"
        raise InputError(expected_got("new_tokens, repeats", "at least 2 and 1", got))
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    warm_up_s = _seconds(generate, new_tokens)
    short_s, long_s = [], []
    for _ in range(repeats):
        short_s.append(_seconds(generate, 1))
        long_s.append(_seconds(generate, new_tokens))
    return Generation(
        new_tokens=new_tokens,
        short_s=short_s,
        long_s=long_s,
        warm_up_s=warm_up_s,
        peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
    )


def copy_rate(device: torch.device) -> float:
    """Bytes per second of a large copy, read and written; asked for before a pool is there."""
    rate = copy_bytes_per_s(timer_for(device), device)
    release(device)
    return rate


def release(device: torch.device) -> None:
    """Give memory back that nobody uses any more; engines refer to themselves in circles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _seconds(generate: Generate, new_tokens: int) -> float:
    begin = perf_counter()
    generate(new_tokens)
    return perf_counter() - begin
