"""Trees by hand: what handles promise, on a real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ramify import LLM, InputError, SamplingParams

STEP = SamplingParams(max_tokens=4, logprobs=0)


def test_prune_frees_the_subtree_and_says_how_much(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree(list(range(10)), seed=0)
    parent, other = root.expand(2, STEP)
    parent.expand(3, STEP)
    assert len(parent.children) == 3
    free = llm.engine.cache.num_free + llm.engine.cache.num_reserved
    freed = parent.prune()
    gained = llm.engine.cache.num_free + llm.engine.cache.num_reserved - free
    # parent: 4 tokens computed by its children's growth; each child has 3 of its 4 computed
    assert freed >= (4 + 3 * 3) * llm.engine.executor.kv_bytes_per_token
    assert gained == 4 + 3 * 3
    assert parent.state == "pruned" and [n.id for n in root.children] == [other.id]
    root.finish()


def test_fork_inside_a_node_copies_nothing_and_goes_its_own_way(
    make_llm: Callable[..., LLM],
) -> None:
    llm = make_llm()
    root = llm.tree(list(range(10)), seed=0)
    (line,) = root.expand(1, SamplingParams(max_tokens=8, logprobs=0))
    llm.engine.cache.check_integrity()
    computed = root.usage.computed_tokens
    forked = line.fork(13)
    assert forked.path_token_ids == line.path_token_ids[:13]
    assert line.logprobs is not None
    first = sum(t.logprob for t in line.logprobs[:3])
    assert forked.cumulative_logprob == pytest.approx(first)
    (new,) = forked.expand(1, SamplingParams(max_tokens=5))
    assert new.token_ids != line.token_ids[3:]
    # one row asks again what follows token 13, then four of the five new tokens are computed
    assert root.usage.computed_tokens == computed + 4
    # a greedy line forked and regrown is the same line
    (greedy,) = root.expand(1, SamplingParams(temperature=0.0, max_tokens=6))
    (again,) = greedy.fork(12).expand(1, SamplingParams(temperature=0.0, max_tokens=4))
    assert again.token_ids == greedy.token_ids[2:]
    root.finish()


def test_scores_and_questions_leave_no_trace(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree(list(range(10)), seed=0)
    (node,) = root.expand(1, STEP)
    before = [n.token_ids for n in root.children]
    (score,) = node.score([[5, 6]])
    reference = llm.score(node.path_token_ids, [[5, 6]])[0]
    assert score.logprob == pytest.approx(reference.logprob, abs=1e-4)
    assert [n.token_ids for n in root.children] == before
    root.finish()


def test_questions_equal_scores(bytes_model: Path, make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(bytes_model)
    root = llm.tree("is it so", seed=0)
    yes, no = root.ask("? ", ["y", "n"])
    scores = llm.score("is it so? ", ["y", "n"])
    assert [yes, no] == pytest.approx([s.logprob for s in scores], abs=1e-4)
    assert root.children == []
    root.finish()


def test_given_text_becomes_a_child(bytes_model: Path, make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(bytes_model)
    root = llm.tree("once ", seed=0)
    child = root.append("upon", logprobs=1)
    assert child.text == child.completion == "upon" and child.parent is not None
    assert child.parent.id == root.id and child.finish_reason is None
    assert child.cumulative_logprob == pytest.approx(
        llm.score("once ", ["upon"])[0].logprob, abs=1e-3
    )
    root.finish()


def test_closed_nodes_merge_and_live_on(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree(list(range(10)), seed=0)
    (a,) = root.expand(1, STEP)
    (b,) = a.expand(1, STEP)
    (c,) = b.expand(1, STEP)
    cursor = llm.engine.live.path_of(c._request, c.id)
    before = len(llm.engine.cache.path(cursor))
    a.close()
    b.close()
    assert len(llm.engine.cache.path(cursor)) < before
    assert c.path_token_ids == [*range(10), *a.token_ids, *b.token_ids, *c.token_ids]
    assert len(c.expand(2, STEP)) == 2
    root.finish()


def test_outputs_of_a_finished_tree_stay_cached_and_are_exported(
    make_llm: Callable[..., LLM],
) -> None:
    llm = make_llm()
    root = llm.tree(list(range(10)), seed=0)
    (a,) = root.expand(1, STEP)
    b, c = a.expand(2, STEP)
    path = b.path_token_ids
    root.finish([b])
    assert root.export().outputs == [b.id]
    assert llm.engine.cache.computed_match(path) == len(path) - 1
    assert llm.engine.cache.computed_match(c.path_token_ids) == 14
    other = llm.tree(list(range(10)))
    (gone,) = other.expand(1, STEP)
    gone.prune()
    with pytest.raises(InputError, match="a node that is not pruned"):
        other.finish([gone])
    other.finish()


def test_a_finished_tree_is_not_forked(make_llm: Callable[..., LLM]) -> None:
    """It opened the prompt once more, for nobody to close."""
    root = make_llm().tree(list(range(10)))
    root.finish()
    with pytest.raises(InputError, match="an open tree"):
        root.fork(10)


def test_pinned_trees_keep_their_kv_under_pressure(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=80)
    root = llm.tree(list(range(30)), seed=0, pin=True)
    root.expand(1, STEP)
    llm.generate([[50 + i % 40 for i in range(40)]], SamplingParams(max_tokens=5))
    usage = root.usage.computed_tokens
    root.expand(1, STEP)
    # the prompt was neither evicted nor recomputed: 3 of the 4 new tokens are all there is
    assert root.usage.computed_tokens == usage + 3
    root.finish()
