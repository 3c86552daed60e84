"""Times on one device: no moment is counted twice, and what is left over is idle."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.profile.trace import Span


def own_times(spans: Sequence[Span], end_us: float = float("inf")) -> list[float]:
    """Microseconds of each span in which no span that began before it was running.

    A kernel that is started early waits inside for the one before it, so the moments they share
    belong to the earlier. The sum is the length of the spans' union.

    Args:
        spans: in order of begin.
        end_us: nothing counts from there on.
    """
    times, covered = [], float("-inf")
    for span in spans:
        begin, end = max(span.begin_us, covered), min(span.end_us, end_us)
        times.append(max(0.0, end - begin))
        covered = max(covered, end)
    return times


def short_gaps_us(spans: Sequence[Span], longest_us: float) -> float:
    """Microseconds between spans in which nothing runs, pauses longer than `longest_us` left out.

    Args:
        spans: in order of begin.
    """
    total, covered = 0.0, spans[0].end_us if spans else 0.0
    for span in spans:
        gap = span.begin_us - covered
        total += gap if 0 < gap <= longest_us else 0.0
        covered = max(covered, span.end_us)
    return total
