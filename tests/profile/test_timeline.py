"""Own times against a count of every microsecond."""

from __future__ import annotations

import random

from ramify.profile.timeline import own_times, pauses
from ramify.profile.trace import Span


def test_against_counting_every_microsecond():
    rng = random.Random(0)
    for _ in range(50):
        begins = sorted(rng.randrange(60) for _ in range(8))
        spans = [Span("", begin, rng.randrange(12)) for begin in begins]
        end = rng.randrange(40, 80)
        counts = [0] * len(spans)
        for moment in range(end):
            running = [i for i, s in enumerate(spans) if s.begin_us <= moment < s.end_us]
            if running:
                counts[running[0]] += 1
        assert sum(own_times(spans, end)) == sum(counts)


def test_a_pause_is_the_devices_own_if_its_end_was_launched_before_it_began():
    spans = [Span("first", 10, 10), Span("in time", 23, 7), Span("late", 34, 6),
             Span("beside it", 36, 14), Span("in time, too long", 80, 5)]  # fmt: skip
    launched = [9, 20, 31, 31, 40]
    assert pauses(spans, launched, 0, longest_us=20) == (3, 14)  # 10 before the first, 4 for late
    assert pauses(spans, launched, 0, longest_us=30) == (33, 14)
    assert pauses([], [], 0) == (0, 0)


def test_a_shared_moment_belongs_to_the_earlier():
    spans = [Span("a", 0, 10), Span("waits for a", 4, 8), Span("after a gap", 15, 5)]
    assert own_times(spans) == [10, 2, 5]
    assert own_times(spans, 17) == [10, 2, 2]
