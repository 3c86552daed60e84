"""What a front leaves behind in the logical tree: closed, kept or pruned, and seeds by path."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from ramify.core.errors import InputError
from ramify.core.seeds import given_seed
from ramify.search import LogicalTree, NodeState, Select
from ramify.search.front import Front


def move(
    front: Front, nodes: Sequence[int], tokens: Sequence[int], held: Collection[int] = ()
) -> None:
    sums = [0.0] * len(nodes)
    action = Select(start=0, nodes=nodes, tokens=tokens, logprobs=sums, held=held, top=1)
    front.check(action)
    front.move(action, str)


def states(tree: LogicalTree) -> str:
    """A letter for each node: Growing, Idle, Closed or Pruned."""
    return "".join(node.state.name[0] for node in tree)


@pytest.fixture
def tree() -> LogicalTree:
    tree = LogicalTree([9], "p", 77)
    tree[0].state = NodeState.IDLE
    return tree


def test_a_life_of_branches(tree: LogicalTree) -> None:
    front = Front(tree, 0)
    move(front, [0, 0, 0], [4, 5, 6])
    assert front.nodes == [1, 2, 3] and states(tree) == "IGGG"
    move(front, [1, 1], [7, 8], held={2})
    assert front.nodes == [4, 5] and states(tree) == "ICIPGG"
    # 4 ends: 1 lives on through 5; the held node is given up
    move(front, [5], [9])
    assert states(tree) == "ICPPPCG"
    # a node that is held keeps the ancestors that lead to it
    move(front, (), (), held={6})
    assert states(tree) == "ICPPPCI" and front.nodes == []
    move(front, (), ())
    assert states(tree) == "IPPPPPP"
    assert tree.completion_ids(6) == [4, 8, 9] and tree.completion_text(6) == "489"
    assert tree[6].seed == given_seed(77, (4, 8, 9))


def test_the_start_may_be_held_and_is_never_pruned(tree: LogicalTree) -> None:
    front = Front(tree, 0)
    move(front, [0], [1], held={0})
    move(front, (), (), held={0})
    assert states(tree) == "IP"


def test_only_nodes_of_the_front_go_on(tree: LogicalTree) -> None:
    front = Front(tree, 0)
    move(front, [0, 0], [1, 2])
    move(front, [1], [3], held={2})
    with pytest.raises(InputError, match=r"Select.nodes: expected nodes of the front, got 2"):
        move(front, [2], [3])
