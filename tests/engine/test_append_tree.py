"""Trees of given tokens: each sees its ancestors alone, all in one step, whatever is cut later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from ramify import LLM
from ramify.cache import TokenTree
from ramify.core.errors import InputError
from ramify.engine.codec import Codec
from ramify.engine.engine import Engine
from ramify.engine.rules import Limits
from ramify.engine.view import MAX_WAITING_VIEW
from ramify.scheduling import make_policy
from ramify.search.controller import Appended, AppendTree, Failed, Finish, Started
from ramify.testing.executor import NoModel

PROMPT = [3, 1, 4, 1, 5]
TOKENS, PARENT = (9, 2, 6, 5, 3, 5), (-1, 0, 0, 1, -1, 2)


class Once:
    """Appends one tree and keeps what comes of it."""

    def __init__(self, action: AppendTree) -> None:
        self.action = action
        self.events: list[Appended | Failed] = []

    def advance(self, tree, events):
        if isinstance(events[0], Started):
            return [self.action]
        self.events += events
        is_over = isinstance(events[0], Failed) or len(self.events) == len(self.action.tokens)
        return [Finish()] if is_over else []


def test_tokens_see_their_ancestors_only(
    make_llm: Callable[..., LLM], tiny: tuple[Path, LlamaForCausalLM]
) -> None:
    """The most probable next tokens are those of transformers on every path by itself."""
    once = Once(AppendTree(node=0, tokens=TOKENS, parent=PARENT, ask=(0, 3, 5, 4)))
    make_llm().search(PROMPT, controller=once)
    assert [event.tag for event in once.events] == list(range(6))
    asked = {event.tag: event.top for event in once.events if event.top}
    assert set(asked) == {0, 3, 5, 4}
    for place, top in asked.items():
        path, at = [], place
        while at >= 0:
            path, at = [TOKENS[at], *path], PARENT[at]
        with torch.no_grad():
            logits = tiny[1](torch.tensor([[*PROMPT, *path]])).logits[0, -1]
        ((token, logprob),) = top
        assert token == int(logits.argmax())
        assert logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (AppendTree(node=0, tokens=(), parent=()), "a parent for each"),
        (AppendTree(node=0, tokens=(1, 2), parent=(-1,)), "a parent for each"),
        (AppendTree(node=0, tokens=(1, 2), parent=(-1, 1)), r"parent\[1\]: expected a place"),
        (AppendTree(node=0, tokens=(1,), parent=(-1,), ask=(1,)), "ask: expected places below 1"),
        (AppendTree(node=0, tokens=(1, 96), parent=(-1, 0)), "token"),
    ],
)
def test_what_is_no_tree_is_refused(make_llm: Callable[..., LLM], action, says) -> None:
    with pytest.raises(InputError, match=says):
        make_llm().search(PROMPT, controller=Once(action))


def test_a_tree_deeper_than_the_context_fails_as_a_whole(make_llm: Callable[..., LLM]) -> None:
    once = Once(AppendTree(node=0, tokens=TOKENS, parent=PARENT))
    result = make_llm(max_context=7).search(PROMPT, controller=once)
    assert [type(event) for event in once.events] == [Failed] and len(result.tree) == 1


def test_a_tree_of_more_tokens_than_waiting_tasks_is_one_step() -> None:
    """On an engine without a model; nothing is left behind."""
    size, slots = 2 * MAX_WAITING_VIEW, 1000
    executor = NoModel(num_slots=slots)
    engine = Engine(
        executor,
        TokenTree(slots),
        make_policy("fcfs", max_rows=512),
        Codec(None, executor.vocab_size),
        Limits(max_context=slots, num_slots=slots, eos_token_ids=()),
        prefix_cache=False,
    )
    tree = AppendTree(
        node=0, tokens=(1,) * size, parent=(-1, *(i // 2 for i in range(size - 1))), ask=(3,)
    )
    request = engine.submit(Once(tree), [i % 8 for i in range(40)])
    while not request.is_done:
        engine.step()
    assert request.error is None
    engine.cache.check_integrity()
    assert engine.cache.num_free == slots, "slots leaked"
    assert executor.rows == [40 + size] and executor.live_tokens == [40 + size]
