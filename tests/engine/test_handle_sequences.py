"""Random sequences of handle calls against a fresh engine, which computes every path itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from ramify import LLM, NodeHandle, SamplingParams
from ramify.engine.pins import Pin

PROMPT = list(range(20, 28))
LONGEST = 40  # tokens of a path
ACTIONS = ("expand", "expand", "append", "fork", "rewind", "pin", "pin", "unpin", "close", "prune")
AMPLE, SCARCE = 4000, 56


class Sequence:
    """A tree under random calls. What each call may cost and leave is written out beside it."""

    def __init__(self, path: str, num_slots: int, data: st.DataObject, *, ahead: bool) -> None:
        self.llm = LLM(path, num_slots=num_slots, run_ahead=ahead)
        self.fresh = LLM(path, num_slots=600, prefix_cache=False)
        self.now_s = 0.0
        self.llm.engine.live.pins.clock = lambda: self.now_s
        self.data = data
        self.is_ample = num_slots == AMPLE
        self.root = self.llm.tree(PROMPT)
        self.nodes = [self.root, *self.root.expand(1, SamplingParams(max_tokens=6, seed=0))]
        self.pins: list[tuple[Pin, float, list[int]]] = []
        self.continuation = cache(self._continuation)

    def _continuation(self, tokens: tuple[int, ...], count: int) -> list[int]:
        params = SamplingParams(temperature=0.0, max_tokens=count)
        (output,) = self.fresh.generate([list(tokens)], params)
        return output.outputs[0].token_ids

    def number(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def go(self) -> None:
        action = self.data.draw(st.sampled_from(ACTIONS))
        node = self.data.draw(st.sampled_from([n for n in self.nodes if n.state == "idle"]))
        computed = self.root.usage.computed_tokens
        cost = getattr(self, action)(node)
        paid = self.root.usage.computed_tokens - computed
        if cost is None:
            assert paid == 0
        elif self.is_ample:
            # at most the last token of the path besides, which nobody had asked beyond
            assert cost <= paid <= cost + 1
        self.now_s += self.number(0, 3)
        self.check()

    def expand(self, node: NodeHandle) -> int | None:
        count = min(self.number(1, 6), LONGEST - len(node.path_token_ids))
        if count < 1:
            return None
        params = SamplingParams(temperature=0.0, max_tokens=count)
        (child,) = node.expand(1, params)
        assert child.token_ids == self.continuation(tuple(node.path_token_ids), count)
        self.nodes.append(child)
        return count - 1

    def append(self, node: NodeHandle) -> int:
        count = min(self.number(1, 4), LONGEST - len(node.path_token_ids))
        tokens = [self.number(0, 95) for _ in range(count)]
        if tokens:
            self.nodes.append(node.append(tokens))
        return count

    def fork(self, node: NodeHandle) -> None:
        at = self.number(len(PROMPT), len(node.path_token_ids))
        self.nodes.append(node.fork(at))
        assert self.nodes[-1].path_token_ids == node.path_token_ids[:at]

    def rewind(self, node: NodeHandle) -> None:
        if node.parent is None or node.children:
            return
        path = node.path_token_ids
        to = self.number(len(PROMPT), len(path))
        assert node.rewind(to=to).path_token_ids == path[:to]

    def pin(self, node: NodeHandle) -> None:
        ttl = self.number(1, 8)
        pin = node.pin(ttl)
        self.pins.append((pin, self.now_s + ttl, node.path_token_ids))

    def unpin(self, node: NodeHandle) -> None:
        node.unpin()
        mine = [pin for pin, _, _ in self.pins if pin.node == node.id]
        assert all(pin.state != "held" for pin in mine)

    def close(self, node: NodeHandle) -> None:
        if node.parent is not None and node.children:
            node.close()

    def prune(self, node: NodeHandle) -> None:
        if node.parent is not None:
            node.prune()

    def check(self) -> None:
        """The tree is sound, and pins hold exactly as long as they said."""
        self.llm.engine.cache.check_integrity()
        for pin, end_s, path in self.pins:
            state = pin.state
            assert state != "held" or self.now_s < end_s
            assert state != "expired" or self.now_s >= end_s
            assert state != "yielded" or not self.is_ample
            assert state != "held" or pin.num_tokens == len(path)

    def end(self) -> None:
        """A finished tree leaves its pins, and after them only prefix cache."""
        self.root.finish()
        self.now_s += 9
        self.check()
        kv = self.llm.engine.cache
        assert not kv.cursors and kv.available == kv.num_slots


@pytest.mark.parametrize("num_slots", [AMPLE, SCARCE])
@pytest.mark.parametrize("ahead", [False, True], ids=["waiting", "ahead"])
@settings(max_examples=20)
@given(data=st.data())
def test_greedy_tokens_are_those_of_a_fresh_engine(
    tiny: tuple[Path, LlamaForCausalLM], num_slots: int, ahead: bool, data: st.DataObject
) -> None:
    sequence = Sequence(str(tiny[0]), num_slots, data, ahead=ahead)
    for _ in range(data.draw(st.integers(5, 25))):
        sequence.go()
    sequence.end()
