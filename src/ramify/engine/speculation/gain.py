"""Whether drafting pays: tokens that a step brings more, against the time that it takes more.

A branch whose drafts gain nothing is left alone for a while, longer each time, and then tried
again. Only times depend on this, never tokens.
"""

from __future__ import annotations

LEAST_GAIN = 1.05
"""Tokens per time against plain decoding. Making drafts and waiting for each step has a price."""
TRIES = 4
"""Drafted steps before a branch is judged."""
FIRST_PAUSE, LONGEST_PAUSE = 16, 256
"""Tokens that a branch goes without drafts."""
KEEP = 0.8
"""What an average keeps of its value when a new number comes."""
OUTLIER = 3.0
"""A step that takes so many times the average is taken for so much; it was interrupted."""


def smoothed(known: float | None, seconds: float) -> float:
    """A moving average of times; an interruption does not upset it."""
    if known is None:
        return seconds
    return KEEP * known + (1 - KEEP) * min(seconds, OUTLIER * known)


class StepCosts:
    """Seconds of a step by its rows, to a factor of two, as measured lately."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._seen: set[int] = set()

    def note(self, num_rows: int, seconds: float) -> None:
        """Hear of a step. The first of a kind may have compiled kernels and does not count."""
        size = num_rows.bit_length()
        if size not in self._seen:
            self._seen.add(size)
            return
        self._seconds[size] = smoothed(self._seconds.get(size), seconds)

    def ratio(self, num_rows: int, more_rows: int, more_seconds: float) -> float:
        """How many times longer a step takes with `more_rows` and time spent on them before.

        At least 1, and 1 while steps of either size are unknown.
        """
        few = self._seconds.get(num_rows.bit_length(), 0.0)
        many = self._seconds.get((num_rows + more_rows).bit_length(), 0.0)
        return max((many + more_seconds) / few, 1.0) if few and many else 1.0


class DraftGain:
    """What a branch's drafts have brought lately.

    Attributes:
        resume_at: generated tokens from which on the branch drafts.
    """

    def __init__(self) -> None:
        self.resume_at = 0
        self._kept = 0.0  # tokens accepted per step, of late
        self._tries = 0
        self._pause = FIRST_PAUSE

    def note(self, num_kept: int, cost_ratio: float, num_generated: int) -> None:
        """Hear of a step.

        Args:
            num_kept: draft tokens accepted; 0 as well where nothing could be drafted.
            cost_ratio: how many times longer the step took than it would have without drafts.
            num_generated: tokens of the branch so far.
        """
        self._tries += 1
        # the first tries weigh alike
        weight = max(1 / self._tries, 1 - KEEP)
        self._kept += weight * (num_kept - self._kept)
        if self._tries < TRIES:
            return
        if (1 + self._kept) / cost_ratio >= LEAST_GAIN:
            self._pause = FIRST_PAUSE
        else:
            self.pause(num_generated)

    def pause(self, num_generated: int) -> None:
        """Draft nothing for a while, then judge anew."""
        self.resume_at = num_generated + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._tries = 0
