"""Where the host's time of traced passes goes: kernels, pauses of the GPU, waits for the host.

All three are held against the same window of the same traced passes: from before the host launches
the first to after it has waited for the last. What is left of it is told apart by nobody, among it
the way back from the device to the host, which a window of several passes has once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.profile.attribute import Work
from ramify.profile.events import Range
from ramify.profile.timeline import own_times, pauses


@dataclass(frozen=True, kw_only=True)
class WindowShares:
    """Parts of a window, out of 1."""

    busy: float  # something runs on the device
    gap: float  # pauses of a GPU's own
    waiting: float  # pauses of a GPU that waits for a launch, the first one included


@dataclass(frozen=True)
class Window:
    """Traced passes in a row."""

    range: Range
    passes: Sequence[Sequence[Work]]

    @property
    def pass_s(self) -> float:
        """The host's seconds of one pass, waiting for the device included."""
        return (self.range[1] - self.range[0]) * 1e-6 / len(self.passes)

    def timed(self) -> list[tuple[Work, float]]:
        """What ran, with seconds of one pass in which nothing before it ran any more."""
        found = self._works()
        times = own_times([work.span for work in found])
        scale = 1e-6 / len(self.passes)
        return [(work, scale * us) for work, us in zip(found, times, strict=True)]

    def shares(self, *, on_gpu: bool) -> WindowShares:
        """Where the window's time goes; a CPU neither launches nor pauses."""
        found = self._works()
        begin, end = self.range
        spans, launched = [work.span for work in found], [work.launched_us for work in found]
        own, waiting = pauses(spans, launched, begin) if on_gpu else (0.0, 0.0)
        whole = end - begin
        return WindowShares(
            busy=sum(own_times(spans)) / whole, gap=own / whole, waiting=waiting / whole
        )

    def _works(self) -> list[Work]:
        return sorted(
            (work for found in self.passes for work in found), key=lambda work: work.span.begin_us
        )
