"""A branch's tokens depend on its path and seed alone: not on method, cache, batch or chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ramify import LLM, SamplingParams
from ramify.engine import NodeHandle

METHODS = ("per_branch", "node", "node_chunk", "flatten")


def grow_random_tree(llm: LLM, prompt: list[int], seed: int) -> list[NodeHandle]:
    """Grow a random tree by hand: expansions, given tokens, forks inside nodes, prunes."""
    rng = np.random.default_rng(seed)
    nodes = [llm.tree(prompt, seed=seed)]
    for _ in range(6):
        at = nodes[rng.integers(len(nodes))]
        kind = rng.choice(["expand", "expand", "append", "fork", "prune"])
        if kind == "append":
            nodes.append(at.append([int(t) for t in rng.integers(0, 90, rng.integers(1, 5))]))
        elif kind == "fork":
            nodes.append(at.fork(int(rng.integers(len(prompt), len(at.path_token_ids) + 1))))
        elif kind == "prune" and at.parent is not None and len(nodes) > 4:
            at.prune()
            nodes = [node for node in nodes if node.state != "pruned"]
        else:
            nodes += at.expand(int(rng.integers(1, 5)), sampling(int(rng.integers(1, 9))))
    return nodes


def sampling(max_tokens: int, **more: object) -> SamplingParams:
    return SamplingParams(temperature=0.9, top_p=0.95, max_tokens=max_tokens, **more)


def paths_of(nodes: Sequence[NodeHandle]) -> list[list[int]]:
    return [node.path_token_ids for node in nodes]


@pytest.mark.parametrize("seed", range(4))
def test_random_trees_are_the_same_for_all_methods_warm_or_cold(
    make_llm: Callable[..., LLM], seed: int
) -> None:
    prompt = list(range(1, 30))
    expected = None
    for method in METHODS:
        llm = make_llm(method=method)
        for _ in range(2):  # cold, then with the prefix cache warm
            nodes = grow_random_tree(llm, prompt, seed)
            paths = paths_of(nodes)
            nodes[0].finish()
            expected = expected or paths
            assert paths == expected, f"{method} differs"


@pytest.mark.parametrize("method", METHODS)
def test_each_branch_alone_gives_the_same_tokens(make_llm: Callable[..., LLM], method: str) -> None:
    """Every sampled node of random trees, run again as a plain request on its own prefix."""
    llm, alone = make_llm(method=method), make_llm(method="per_branch", prefix_cache=False)
    num_checked = 0
    for seed in range(3):
        nodes = grow_random_tree(llm, list(range(1, 20)), seed)
        for node in nodes[1:]:
            if node.finish_reason is None or node.parent is None:
                continue  # given or forked tokens, not sampled ones
            params = sampling(len(node.token_ids), seed=node.seed)
            (output,) = alone.generate([node.parent.path_token_ids], params)
            assert output.outputs[0].token_ids == node.token_ids
            num_checked += 1
        nodes[0].finish()
    assert num_checked > 15


def test_siblings_draw_different_tokens(make_llm: Callable[..., LLM]) -> None:
    root = make_llm().tree([1, 2, 3], seed=0)
    drawn = {tuple(node.token_ids) for node in root.expand(6, sampling(8))}
    drawn |= {tuple(node.token_ids) for node in root.expand(6, sampling(8))}
    assert len(drawn) == 12
    root.finish()


def test_batch_composition_and_chunks_do_not_matter(make_llm: Callable[..., LLM]) -> None:
    prompts = [list(range(1, 25)), [3, 4], list(range(1, 15)), [7] * 30]
    params = [sampling(9, seed=i, n=1 + i) for i in range(4)]
    together = make_llm().generate(prompts, params)
    for index, prompt in enumerate(prompts):
        (single,) = make_llm(max_rows=5).generate([prompt], params[index])
        for a, b in zip(single.outputs, together[index].outputs, strict=True):
            assert a.token_ids == b.token_ids


@pytest.mark.parametrize("policy", ["fcfs", "prefill_first"])
def test_preemption_keeps_every_token(make_llm: Callable[..., LLM], policy: str) -> None:
    """A pool too small for all branches at once: tasks are preempted, results are unchanged."""
    prompts = [list(range(1, 20)), list(range(30, 45))]
    params = sampling(20, seed=3, n=5)
    roomy = make_llm().generate(prompts, params)
    tight_llm = make_llm(num_slots=64, policy=policy)
    tight = tight_llm.generate(prompts, params)
    assert sum(output.usage.preemptions for output in tight) > 0
    for a, b in zip(roomy, tight, strict=True):
        assert [o.token_ids for o in a.outputs] == [o.token_ids for o in b.outputs]
        assert b.error is None


def test_prefix_cache_is_used_and_counted(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    prompt = list(range(1, 41))
    cold = llm.generate([prompt], sampling(4, seed=0))[0]
    warm = llm.generate([[*prompt, 50, 51]], sampling(4, seed=0))[0]
    assert cold.usage.cached_tokens == 0
    assert warm.usage.cached_tokens == 40
    assert warm.usage.computed_tokens == 2 + 3


def test_equal_prompts_in_one_batch_are_computed_once(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(max_rows=16)
    outputs = llm.generate([list(range(1, 51))] * 4, sampling(3, seed=0))
    assert sum(output.usage.computed_tokens for output in outputs) == 50 + 4 * 2
    assert len({tuple(o.outputs[0].token_ids) for o in outputs}) == 1


def test_kv_bytes_are_shared_out_exactly(make_llm: Callable[..., LLM]) -> None:
    """n = 4 branches on a prompt of 20: shared reads 20 once a step, alone 4 times."""
    llm = make_llm(method="flatten")
    (output,) = llm.generate([list(range(1, 21))], sampling(6, seed=0, n=4))
    token_bytes = llm.engine.executor.kv_bytes_per_token
    # prefill reads the prompt once; decode step i reads it once and 4 private tails of i tokens
    shared = 20 + sum(20 + 4 * i for i in range(1, 6))
    alone = 20 + sum(4 * (20 + i) for i in range(1, 6))
    assert output.usage.kv_bytes_read == pytest.approx(shared * token_bytes, rel=1e-6)
    assert output.usage.kv_bytes_per_branch == alone * token_bytes
    assert llm.engine.executor.kv_bytes_read == shared * token_bytes
