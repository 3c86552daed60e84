"""Forks and rewinds: what they do to tokens, to log-probabilities and to the KV pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ramify import LLM, InputError, NodeHandle, SamplingParams

PROMPT = list(range(10))


def greedy(num_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=num_tokens)


def used(llm: LLM) -> int:
    """Slots that hold a token; reservations and free ones do not."""
    cache = llm.engine.cache
    return cache.num_slots - cache.num_free - cache.num_reserved


def grow(root: NodeHandle, num_tokens: int) -> NodeHandle:
    (node,) = root.expand(1, greedy(num_tokens))
    return node


def test_rewind_frees_the_tail_and_recomputes_nothing(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree(PROMPT)
    line = grow(root, 8)
    path, logprobs = line.path_token_ids, line.token_logprobs
    assert used(llm) == 17  # the last token was sampled and never computed
    computed = root.usage.computed_tokens
    old = line.id
    assert line.rewind(3) is line and line.id != old
    assert line.path_token_ids == path[:15] and used(llm) == 15
    assert logprobs is not None and line.token_logprobs == logprobs[:5]
    assert line.cumulative_logprob == pytest.approx(sum(logprobs[:5]))
    assert root.usage.computed_tokens == computed
    llm.engine.cache.check_integrity()
    again = grow(line, 3)
    assert again.path_token_ids == path
    # one row asks again what follows token 15, then two of the three new tokens are computed
    assert root.usage.computed_tokens == computed + 2
    assert [node.id for node in root.children] == [line.id]
    root.finish()


def test_rewind_past_the_nodes_above(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree(PROMPT)
    first = grow(root, 6)
    given = first.append([7, 8, 9])
    last = grow(given, 4)
    path = last.path_token_ids
    before = used(llm)
    last.rewind(to=12)
    assert last.path_token_ids == path[:12] and last.parent is not None
    assert last.parent.id == root.id
    # both nodes above are idle and grow on; only what `last` alone had is gone
    assert first.state == given.state == "idle" and before - used(llm) == 3
    assert grow(given, 4).path_token_ids == path
    assert last.rewind(to=10).path_token_ids == PROMPT and last.token_ids == []
    assert grow(last, 6).path_token_ids == path[:16]
    assert last.rewind(0) is last
    root.finish()


def test_text_and_unknown_probabilities_of_a_part(
    bytes_model: Path, make_llm: Callable[..., LLM]
) -> None:
    llm = make_llm(bytes_model)
    root = llm.tree("once ")
    given = root.append("upöñ a")  # two tokens each for ö and ñ
    cut = given.fork(len(root.path_token_ids) + 4)
    assert cut.text == cut.completion == "upö" and cut.token_logprobs is None
    known = root.append("upon", logprobs=0)
    part = known.fork(len(root.path_token_ids) + 2)
    assert part.text == "up" and part.token_logprobs == known.token_logprobs[:2]
    scored = llm.score("once ", ["up"])[0].logprob
    assert part.cumulative_logprob == pytest.approx(scored, abs=1e-3)
    root.finish()


def test_bad_positions_change_nothing(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree(PROMPT)
    line = grow(root, 4)
    for wrong in (9, 15, -1, 2.5, True, None):
        with pytest.raises(InputError, match=r"at: expected an int in \[10, 14\]"):
            line.fork(wrong)
    for n, to, says in [
        (None, None, "either n or to, got none"),
        (1, 12, "either n or to, got both"),
        (-1, None, "n: expected an int >= 0, got -1"),
        (True, None, "n: expected an int >= 0, got True"),
        (5, None, r"at: expected an int in \[10, 14\], got 9"),
        (None, 15, r"at: expected an int in \[10, 14\], got 15"),
    ]:
        with pytest.raises(InputError, match=says):
            line.rewind(n, to=to)
    below = grow(line, 2)
    with pytest.raises(InputError, match=f"node {line.id}: expected a leaf to rewind"):
        line.rewind(1)
    below.prune()
    assert len(line.rewind(1).token_ids) == 3
    gone = grow(root, 2)
    gone.prune()
    for cut in (lambda: gone.fork(11), lambda: gone.rewind(1)):
        with pytest.raises(InputError, match="a node with a live path"):
            cut()
    root.finish()
    with pytest.raises(InputError, match="an open tree"):
        line.rewind(1)
