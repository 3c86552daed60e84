"""Times on one device: no moment is counted twice, and what is left over is idle."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.profile.trace import Span

PAUSE_US = 20.0
"""The longest pause of a GPU's own: 1 to 2 us between kernels, some more between two graphs."""


def own_times(spans: Sequence[Span], end_us: float = float("inf")) -> list[float]:
    """Microseconds of each span in which no span that began before it was running.

    A kernel that is started early waits inside for the one before it, so the moments they share
    belong to the earlier. The sum is the length of the spans' union, whatever their streams.

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


def pauses(
    spans: Sequence[Span],
    launched_us: Sequence[float],
    begin_us: float,
    longest_us: float = PAUSE_US,
) -> tuple[float, float]:
    """Microseconds in which nothing runs: pauses of the device's own, and those for the host.

    A pause is the device's own if what ends it had been launched before it began, and waits for the
    host otherwise. One of the first sort that is longer than `longest_us` is neither: a device
    needs no such time, so what ran then is missing.

    Args:
        spans: in order of begin.
        launched_us: of each span, when the host's call that launched it was over.
        begin_us: when the first pause begins.
    """
    own, waiting, covered = 0.0, 0.0, begin_us
    for span, launched in zip(spans, launched_us, strict=True):
        pause = max(0.0, span.begin_us - covered)
        if launched > covered:
            waiting += pause
        elif pause <= longest_us:
            own += pause
        covered = max(covered, span.end_us)
    return own, waiting
