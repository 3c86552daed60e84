"""Sequence length as Generative AI Beyond LLMs (arXiv 2312.14385) defines it.

In an image or video model the sequence of a self-attention is the pixels, patches or frames it
attends over, so it changes from layer to layer: a trace over one pass, and a histogram of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log

from ramify.profile.operators.kinds import SELF_ATTENTION, SPATIAL, TEMPORAL
from ramify.profile.report import (
    AttentionCall,
    ComponentReport,
    Report,
    SweepPoint,
)
from ramify.profile.totals import totals


@dataclass(frozen=True, kw_only=True)
class LengthBin:
    """Attentions of one sequence length."""

    q_len: int
    count: int
    count_share: float
    flops_share: float


@dataclass(frozen=True, kw_only=True)
class SpatialTemporal:
    """Attention over the pixels of a frame against attention over the frames of a pixel."""

    spatial_flops: int
    temporal_flops: int
    spatial_s: float  # least time, flash attention
    temporal_s: float


def length_trace(part: ComponentReport, kinds: Sequence[str] = SELF_ATTENTION) -> list[int]:
    """Query positions of every attention of those kinds in a pass, in order."""
    return [call.q_len for call in part.attention if call.kind in kinds]


def length_histogram(part: ComponentReport) -> list[LengthBin]:
    """Sequence lengths of self-attention in a pass, longest first, by count and by FLOPs."""
    return _histogram([(call, 1) for call in part.attention])


def generation_histogram(report: Report) -> list[LengthBin]:
    """The same over a generation: every component, as often as it runs."""
    return _histogram([(call, part.calls) for part in report.components for call in part.attention])


def _histogram(weighted: Sequence[tuple[AttentionCall, int]]) -> list[LengthBin]:
    counts: dict[int, int] = defaultdict(int)
    flops: dict[int, int] = defaultdict(int)
    for call, times in weighted:
        if call.kind in SELF_ATTENTION:
            counts[call.q_len] += times
            flops[call.q_len] += times * call.flops
    return [
        LengthBin(
            q_len=q_len,
            count=counts[q_len],
            count_share=counts[q_len] / sum(counts.values()),
            flops_share=flops[q_len] / max(1, sum(flops.values())),
        )
        for q_len in sorted(counts, reverse=True)
    ]


def length_range(part: ComponentReport) -> tuple[float, float]:
    """How far lengths reach: longest over shortest, and longest over the mean."""
    lengths = length_trace(part)
    if not lengths:
        return 1.0, 1.0
    return max(lengths) / min(lengths), max(lengths) * len(lengths) / sum(lengths)


def similarity_bytes(part: ComponentReport) -> tuple[int, int]:
    """Bytes of the similarity matrices of self-attention: all of a pass, and the largest."""
    found = [call.matrix_bytes for call in part.attention if call.kind in SELF_ATTENTION]
    return sum(found), max(found, default=0)


def spatial_temporal(part: ComponentReport) -> SpatialTemporal:
    """Both kinds in one pass."""
    found = {
        kind: [call for call in part.attention if call.kind == kind] for kind in (SPATIAL, TEMPORAL)
    }
    return SpatialTemporal(
        spatial_flops=sum(call.flops for call in found[SPATIAL]),
        temporal_flops=sum(call.flops for call in found[TEMPORAL]),
        spatial_s=sum(call.flash_s for call in found[SPATIAL]),
        temporal_s=sum(call.flash_s for call in found[TEMPORAL]),
    )


def sweep(
    characterise_at: Callable[[int], Report], size: str, values: Sequence[int]
) -> tuple[SweepPoint, ...]:
    """The component with most FLOPs, at each of several sizes."""
    return tuple(_point(characterise_at(value).main, size, value) for value in values)


def crossover(points: Sequence[SweepPoint]) -> float | None:
    """The value at which temporal attention takes as many FLOPs as spatial attention.

    Where the sweep does not reach it, it is found from the last two values, the ratio of both
    kinds being a power of the size. None where the two never meet or one is missing.
    """
    ratios = [
        (point.value, point.flops_by_kind[TEMPORAL] / point.flops_by_kind[SPATIAL])
        for point in points
        if point.flops_by_kind.get(SPATIAL) and point.flops_by_kind.get(TEMPORAL)
    ]
    if len(ratios) < 2:
        return None
    pairs = list(pairwise(ratios))
    crossing = [pair for pair in pairs if (pair[0][1] - 1) * (pair[1][1] - 1) <= 0]
    (low, at_low), (high, at_high) = (crossing or pairs[-1:])[0]
    slope = log(at_high / at_low) / log(high / low)
    return None if slope <= 0 else high * exp(-log(at_high) / slope)


def _point(part: ComponentReport, size: str, value: int) -> SweepPoint:
    found = totals([part], once=True)
    return SweepPoint(
        size=size,
        value=value,
        flops_by_kind={kind: total.flops for kind, total in found.items()},
        flash_s_by_kind={kind: total.flash_s for kind, total in found.items()},
        matrix_bytes=similarity_bytes(part)[0],
    )
