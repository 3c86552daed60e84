"""Interleaving and medians."""

from __future__ import annotations

from collections import Counter

from ramify.bench.timer import interleaved, median_of


def test_every_provider_gets_its_repeats_and_leads_in_turn():
    order = list(interleaved(["a", "b", "c"], 3))
    assert Counter(order) == {"a": 3, "b": 3, "c": 3}
    assert [order[i : i + 3] for i in (0, 3, 6)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]


def test_median():
    assert median_of([3.0, 1.0, 2.0]) == 2.0
    assert median_of([]) == 0.0
