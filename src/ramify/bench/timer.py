"""Medians of interleaved repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TypeVar

T = TypeVar("T")


def interleaved(providers: Sequence[T], repeats: int) -> Iterator[T]:
    """Every provider `repeats` times, in rounds that start with another one each time.

    A machine that slows down or speeds up meanwhile then treats all providers alike.
    """
    for turn in range(repeats):
        shift = turn % len(providers)
        yield from (*providers[shift:], *providers[:shift])


def median_of(samples: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return float(median(samples)) if samples else 0.0
