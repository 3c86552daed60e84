"""Pins: KV that stays for a time by a clock of our own, and gives way before anything fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ramify import LLM, InputError, NodeHandle, SamplingParams

PROMPT = list(range(30))
OTHER = [50 + i % 40 for i in range(40)]
SHORT = SamplingParams(temperature=0.0, max_tokens=5)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def with_clock(llm: LLM) -> Clock:
    llm.engine.live.pins.clock = clock = Clock()
    return clock


def cached(llm: LLM, tokens: list[int]) -> int:
    return llm.engine.cache.computed_match(tokens)


def crowd(llm: LLM, prompt: list[int] = OTHER) -> None:
    """Fill the pool with other prompts, so that all that may be evicted is."""
    for shift in range(3):
        llm.generate([[token + shift for token in prompt]], SHORT)


def pinned_line(llm: LLM) -> NodeHandle:
    (line,) = llm.tree(PROMPT).expand(1, SHORT)
    return line


def test_a_pin_outlives_its_tree_until_its_time_is_over(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=85)
    clock = with_clock(llm)
    line = pinned_line(llm)
    path = line.path_token_ids
    pin = line.pin(ttl=10.0)
    assert pin.num_tokens == 35 and pin.state == "held"
    line.parent.finish()
    crowd(llm)
    # the last token was never computed
    assert cached(llm, path) == 34 and pin.state == "held"
    again = llm.tree(path, seed=0)
    again.expand(1, SHORT)
    assert again.usage.cached_tokens == 34 and again.usage.computed_tokens == 1 + 4
    again.finish()
    clock.now_s += 9.9
    assert pin.state == "held"
    clock.now_s += 0.1
    assert pin.state == "expired"
    crowd(llm)
    assert cached(llm, path) == 0


def test_without_a_pin_the_same_crowd_evicts(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=85)
    line = pinned_line(llm)
    path = line.path_token_ids
    line.parent.finish()
    crowd(llm)
    assert cached(llm, path) == 0


def test_a_pin_holds_what_rewind_and_prune_let_go(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    line = pinned_line(llm)
    path = line.path_token_ids
    pin = line.pin()
    line.rewind(4)
    assert cached(llm, path) == 34
    line.prune()
    assert cached(llm, path) == 34 and pin.state == "held"
    pin.release()
    assert pin.state == "released" and cached(llm, path) == 30
    llm.engine.cache.check_integrity()
    line.parent.finish()


def test_idle_trees_are_dropped_but_for_their_pins(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=85)
    root = llm.tree(PROMPT)
    kept, dropped = root.expand(2, SamplingParams(max_tokens=8, seed=1))
    kept.pin(ttl=60.0)
    crowd(llm)
    computed = root.usage.computed_tokens
    kept.expand(1, SHORT)
    assert root.usage.computed_tokens == computed + 1 + 4  # its last token, four new ones
    dropped.expand(1, SHORT)
    assert root.usage.computed_tokens == computed + 5 + 8 + 4  # its eight tokens once more
    kept.unpin()
    root.finish()


def test_pins_yield_before_a_request_fails_first_the_first_to_end(
    make_llm: Callable[..., LLM],
) -> None:
    llm = make_llm(num_slots=80)
    with_clock(llm)
    pins = []
    for begin, ttl in ((0, None), (40, 5.0), (60, 50.0)):
        root = llm.tree(list(range(begin, begin + 20)))
        root.expand(1, SamplingParams(max_tokens=1))
        pins.append(root.pin(ttl))
        root.finish()
    output, small = llm.generate([list(range(30, 60)), [1, 2]], SHORT)
    assert output.error is None and len(output.outputs[0].token_ids) == 5 and not small.error
    assert [pin.state for pin in pins] == ["held", "yielded", "held"]
    llm.generate([list(range(10, 80))], SHORT)
    assert [pin.state for pin in pins] == ["yielded"] * 3


def test_a_later_pin_replaces_an_earlier_one(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    clock = with_clock(llm)
    line = pinned_line(llm)
    first, second = line.pin(ttl=5), line.pin(ttl=20)
    assert first.state == "released"
    first.release()
    clock.now_s += 10
    assert second.state == "held"
    line.parent.finish()
    line.unpin()
    line.unpin()
    assert second.state == "released"


def test_without_a_prefix_cache_a_pin_ends_with_its_tree(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(prefix_cache=False)
    line = pinned_line(llm)
    pin = line.pin()
    line.parent.finish()
    assert pin.state == "released"


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), float("nan"), True, "60"])
def test_bad_times(make_llm: Callable[..., LLM], wrong: object) -> None:
    root = make_llm().tree(PROMPT)
    with pytest.raises(InputError, match="ttl: expected seconds > 0, or None"):
        root.pin(wrong)
    root.finish()
    with pytest.raises(InputError, match="an open tree"):
        root.pin(1.0)
