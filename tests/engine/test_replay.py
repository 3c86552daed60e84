"""Replays of recorded trees: rows and live tokens per iteration as recorded, nothing leaks.

The recorded files of DeFT are used when RAMIFY_WORKLOADS names the folder that holds them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ramify import LLM, SamplingParams
from ramify.cache import TokenTree
from ramify.core import env
from ramify.engine.codec import Codec
from ramify.engine.engine import Engine
from ramify.engine.rules import Limits
from ramify.scheduling import make_policy
from ramify.search.recorded import RecordedNode, RecordedTree, check_tree, load_recorded_trees
from ramify.search.replay import Replay
from ramify.testing.executor import NoModel

WORKLOADS = os.environ.get(env.WORKLOADS)
FILES = ["sorting128ToT.json", "docmergeToT.json"]


def random_record(seed: int) -> RecordedTree:
    """A tree of up to 30 nodes in the recorded format."""
    rng = np.random.default_rng(seed)
    prompt = int(rng.integers(1, 30))
    nodes = {0: RecordedNode(id=0, value=prompt, start=1 - prompt, end=0, children=[])}
    for node in range(1, int(rng.integers(2, 30))):
        parent = nodes[int(rng.integers(max(0, node - 6), node))]
        value = int(rng.integers(1, 9))
        start = parent.end + 1
        nodes[node] = RecordedNode(
            id=node, value=value, start=start, end=start + value - 1, children=[]
        )
        parent.children.append(node)
    return check_tree({str(node.id): node for node in nodes.values()})


def replay_without_model(tree: RecordedTree) -> NoModel:
    """Replay a tree on an engine without a model and check that nothing is left behind."""
    slots = tree.peak_live_tokens
    executor = NoModel(num_slots=slots)
    limits = Limits(max_context=tree.longest_path + 1, num_slots=slots, eos_token_ids=())
    engine = Engine(
        executor,
        TokenTree(slots),
        make_policy("fcfs", max_rows=1 << 20),
        Codec(None, executor.vocab_size),
        limits,
        prefix_cache=False,
    )
    request = engine.submit(Replay(tree), [i % 8 for i in range(tree.root.value)])
    while not request.is_done:
        engine.step()
    assert request.error is None
    engine.cache.check_integrity()
    assert engine.cache.num_free == slots, "slots leaked"
    return executor


def assert_as_recorded(executor: NoModel, tree: RecordedTree) -> None:
    """Step i computed iteration i: the prompt in iteration 0, then one row per growing node."""
    assert executor.rows[0] == tree.root.value
    assert len(executor.rows) == tree.num_iterations
    for step in range(1, tree.num_iterations):
        assert executor.rows[step] == tree.rows_at(step), f"rows in iteration {step}"
        assert executor.live_tokens[step] == tree.live_tokens_at(step), f"tokens in {step}"


@pytest.mark.parametrize("seed", range(30))
def test_random_records(seed: int) -> None:
    tree = random_record(seed)
    assert_as_recorded(replay_without_model(tree), tree)


def test_a_record_on_a_real_model_with_others_beside_it(make_llm: Callable[..., LLM]) -> None:
    """Tokens of a plain request do not change because a tree is replayed in the same steps."""
    llm = make_llm()
    params = SamplingParams(max_tokens=15, seed=4)
    (alone,) = llm.generate([[1, 2, 3]], params)
    tree = random_record(3)
    stream = llm.stream([1, 2, 3], params)
    result = llm.search([i % 90 for i in range(tree.root.value)], controller=Replay(tree), seed=1)
    assert result.usage.generated_tokens == tree.generated_tokens
    assert len(result.tree) == len(tree.nodes)
    assert list(stream)[-1].outputs[0].token_ids == alone.outputs[0].token_ids


@pytest.mark.skipif(WORKLOADS is None, reason="RAMIFY_WORKLOADS is not set")
@pytest.mark.parametrize("name", FILES)
def test_the_shortest_real_records(name: str) -> None:
    """`ramify bench replay` runs them all; here the three with the fewest iterations."""
    assert WORKLOADS is not None
    trees = load_recorded_trees(Path(WORKLOADS) / name)
    for tree in sorted(trees, key=lambda t: t.num_iterations)[:3]:
        assert_as_recorded(replay_without_model(tree), tree)
