"""Random lives: submissions, aborts, prunes, evictions and preemption in a pool that is too small.

Some engines draft: all tokens that may come next, which is right each time, and a line of zeros.

Whatever happens to others, a branch that finishes has the tokens it gets when it runs alone, and
no slot is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from ramify import LLM, SamplingParams
from ramify.engine.request import Request
from ramify.search.controller import (
    Action,
    Event,
    Expand,
    Finish,
    Finished,
    Prune,
    Spawned,
    Started,
)
from ramify.search.tree import TreeView

PROMPTS = [list(range(1, 20)), list(range(1, 12)), [*range(1, 12), 40, 41], [60, 61, 62]]
POOL = 90


class TwoLevels:
    """Grow `width` branches, cut those in `doomed` early, grow each survivor once more."""

    def __init__(self, width: int, doomed: frozenset[int], max_tokens: int) -> None:
        self.width, self.doomed = width, doomed
        self.params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        self.leaves: list[int] = []
        self.waiting = 0

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        actions: list[Action] = []
        for event in events:
            if isinstance(event, Started):
                return [Expand(node=event.root, k=self.width, params=self.params, tag="first")]
            if isinstance(event, Spawned) and event.tag == "first":
                cut = [event.nodes[i] for i in self.doomed]
                self.waiting = self.width - len(cut)
                actions += [Prune(node=node) for node in cut]
            if isinstance(event, Finished) and event.tag == "first":
                # a branch may end in the step that cuts it
                if tree[event.node].id - 1 not in self.doomed:
                    actions.append(Expand(node=event.node, k=1, params=self.params, tag="second"))
            elif isinstance(event, Finished):
                self.leaves.append(event.node)
                if len(self.leaves) == self.waiting:
                    actions.append(Finish(outputs=sorted(self.leaves)))
        return actions


def submit(llm: LLM, kind: int) -> Request:
    """One of twelve fixed requests, each with its own seed."""
    width = 2 + kind % 3
    controller = TwoLevels(width, frozenset(range(kind % 2)), 3 + kind % 4)
    return llm.engine.submit(controller, PROMPTS[kind % len(PROMPTS)], seed=100 + kind)


def tokens_of(request: Request) -> list[list[int]]:
    assert request.finish is not None
    paths = [request.tree.completion_ids(node) for node in request.finish.outputs]
    return sorted(paths)


@pytest.fixture(scope="module")
def expected(tiny: tuple[Path, LlamaForCausalLM]) -> list[list[list[int]]]:
    """The twelve requests, each alone in a roomy engine without a prefix cache."""
    results = []
    for kind in range(12):
        llm = LLM(str(tiny[0]), num_slots=600, prefix_cache=False, method="per_branch")
        request = submit(llm, kind)
        while not request.is_done:
            llm.engine.step()
        results.append(tokens_of(request))
    return results


operations = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 11)),
        st.tuples(st.just("abort"), st.integers(0, 30)),
        st.tuples(st.just("evict"), st.integers(1, POOL)),
        st.tuples(st.just("idle"), st.integers(1, POOL)),
        st.tuples(st.just("step"), st.integers(1, 6)),
    ),
    min_size=5,
    max_size=40,
)


def guess(tokens: list[int], most: int) -> list[list[int]]:
    return [[0] * 5, *([token] for token in range(1, 96))]


DRAFTS = {"method": "custom", "drafter": guess, "num_speculative_tokens": 96, "adaptive": False}


@settings(max_examples=60)
@given(
    ops=operations,
    policy=st.sampled_from(["fcfs", "prefill_first"]),
    drafts=st.sampled_from([None, DRAFTS]),
)
def test_no_life_leaks_or_disturbs_another(
    tiny: tuple[Path, LlamaForCausalLM],
    expected: list[list[list[int]]],
    ops: list[tuple[str, int]],
    policy: str,
    drafts: dict[str, object] | None,
) -> None:
    llm = LLM(str(tiny[0]), num_slots=POOL, policy=policy, max_rows=16, speculative_config=drafts)
    live: list[tuple[int, Request]] = []
    for name, value in ops:
        if name == "submit":
            live.append((value, submit(llm, value)))
        elif name == "abort" and live:
            llm.engine.abort(live[value % len(live)][1])
        elif name == "evict":
            llm.engine.cache.evict(value)
        elif name == "idle":
            llm.engine.live.drop_idle(value)
        for _ in range(value if name == "step" else 0):
            llm.engine.step()
            llm.engine.cache.check_integrity()
    while llm.engine.has_work:
        llm.engine.step()
        llm.engine.cache.check_integrity()
    for kind, request in live:
        assert request.is_done
        if request.error is None:
            assert tokens_of(request) == expected[kind]
    assert llm.engine.cache.available == POOL
    llm.engine.cache.evict(POOL)
    assert llm.engine.cache.num_free + llm.engine.cache.num_reserved == POOL


def test_every_request_survives_a_crowd(
    make_llm: Callable[..., LLM], expected: list[list[list[int]]]
) -> None:
    """All twelve at once in a pool that holds about two: none fails, all are preempted or queue."""
    llm = make_llm(num_slots=POOL)
    requests = [submit(llm, kind) for kind in range(12)]
    while not all(request.is_done for request in requests):
        llm.engine.step()
    assert [request.error for request in requests] == [None] * 12
    assert [tokens_of(request) for request in requests] == expected
    assert sum(request.usage.preemptions for request in requests) > 0
