"""Grown nodes, made when they are looked at, against what they must be by definition."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ramify.core.seeds import given_seed
from ramify.search import LogicalTree, NodeState, Select
from ramify.search.front import Front

PROMPT, SEED = [9, 8], 77


class Plain:
    """The same tree as a list of nodes: parent, token and sum; a state follows from who lives."""

    def __init__(self) -> None:
        self.parent = [-1]
        self.token = [-1]
        self.total = [0.0]
        self.front: list[int] = [0]
        self.held: set[int] = set()
        self.appended: set[int] = set()

    def add(self, parent: int, token: int, total: float) -> int:
        self.parent.append(parent)
        self.token.append(token)
        self.total.append(total)
        return len(self.parent) - 1

    def path(self, node: int) -> list[int]:
        return [*self.path(self.parent[node]), node] if node else []

    def states(self) -> list[NodeState]:
        alive = {*self.front, *self.held, *self.appended}
        leading = {above for node in alive for above in self.path(node)}
        states = [NodeState.IDLE]
        for node in range(1, len(self.parent)):
            is_growing = node in self.front or node in self.appended
            state = NodeState.CLOSED if node in leading else NodeState.PRUNED
            state = NodeState.IDLE if node in self.held else state
            states.append(NodeState.GROWING if is_growing else state)
        return states


def select(rng: random.Random, plain: Plain, width: int) -> Select:
    """A random selection; most of the front leads nowhere, some of it is held."""
    parents = rng.sample(plain.front, rng.randint(1, len(plain.front)))
    nodes = [rng.choice(parents) for _ in range(width)]
    held = {n for n in [*plain.held, *plain.front] if n and rng.random() < 0.3}
    tokens = [rng.randrange(100) for _ in nodes]
    sums = [-rng.random() for _ in nodes]
    return Select(start=0, nodes=nodes, tokens=tokens, logprobs=sums, held=held, top=1)


def check(tree: LogicalTree, plain: Plain, nodes: Sequence[int]) -> None:
    states = plain.states()
    for node in nodes:
        found = tree[node]
        path = [plain.token[step] for step in plain.path(node)]
        assert found.state is states[node]
        assert (found.parent, found.token_ids, found.text) == (
            plain.parent[node],
            path[-1:],
            str(path[-1]),
        )
        assert found.seed == given_seed(SEED, path) and tree.completion_ids(node) == path
        assert found.cumulative_logprob == plain.total[node]
        assert found.token_logprobs == [plain.total[node] - plain.total[plain.parent[node]]]
        below = range(node, len(plain.parent))
        assert found.children == [child for child in below if plain.parent[child] == node]


@pytest.mark.parametrize("looks", [0.0, 0.1, 1.0], ids=["unseen", "some", "watched"])
@pytest.mark.parametrize("seed", range(8))
def test_nodes_are_what_they_must_be_whenever_they_are_looked_at(seed: int, looks: float) -> None:
    rng = random.Random(seed)
    tree, plain = LogicalTree(PROMPT, "p", SEED), Plain()
    tree[0].state = NodeState.IDLE
    front = Front(tree, 0)
    for _ in range(20):
        action = select(rng, plain, width=6)
        front.check(action)
        front.move(action, str)
        columns = zip(action.nodes, action.tokens, action.logprobs, strict=True)
        plain.front = [plain.add(*column) for column in columns]
        plain.held = set(action.held)
        assert list(front.nodes) == plain.front
        if plain.held and rng.random() < 0.1:  # a controller appends to what it holds
            parent = max(plain.held)
            child = tree.add(parent, seed=given_seed(tree[parent].seed, (5,)))
            child.token_ids, child.text, child.token_logprobs = [5], "5", [0.0]
            plain.appended.add(plain.add(parent, 5, plain.total[parent]))
        check(tree, plain, [n for n in range(1, len(tree)) if rng.random() < looks])
    assert tree.num_tokens == len(PROMPT) + len(tree) - 1 == len(PROMPT) + len(plain.parent) - 1
    tree.prune_growing(keep=plain.front[:2])
    plain.front, plain.appended = plain.front[:2], set()
    growing = [node.id for node in tree if node.state is NodeState.GROWING]
    assert growing == plain.front


def test_a_deep_tree_is_made_without_recursion() -> None:
    tree = LogicalTree(PROMPT, "p", SEED)
    front = Front(tree, 0)
    for token in range(3000):
        nodes, sums = [front.nodes[0]] * 2, [0.0, -1.0]
        front.move(Select(start=0, nodes=nodes, tokens=[token, 1], logprobs=sums, top=1), str)
    assert tree[len(tree) - 2].seed == given_seed(SEED, range(3000))
    assert len(tree.completion_ids(len(tree) - 2)) == 3000


def test_unknown_nodes_are_unknown() -> None:
    tree = LogicalTree(PROMPT, "p", SEED)
    Front(tree, 0).move(Select(start=0, nodes=[0], tokens=[1], logprobs=[0.0], top=1), str)
    assert 1 in tree and 2 not in tree and -1 not in tree and "a" not in tree
    for node in (2, -1):
        with pytest.raises(KeyError):
            tree[node]
