"""Values come in the order of the continuations, whatever the order of the answers."""

from __future__ import annotations

from ramify.search.controller import Failed, Finish, Score, Scored, Started
from ramify.search.rewards import Rewards
from ramify.search.tree import LogicalTree

TREE = LogicalTree([1, 2], "prompt", seed=0)


def test_answers_may_come_in_any_order() -> None:
    rewards = Rewards(["a", (7, 8), ""])
    asked = rewards.advance(TREE, [Started(root=0)])
    assert asked == [
        Score(node=0, suffix=suffix, reward=True, tag=index)
        for index, suffix in enumerate(["a", (7, 8), ""])
    ]
    assert not rewards.advance(TREE, [Scored(node=0, value=0.3, tag=2)])
    done = rewards.advance(TREE, [Scored(node=0, value=v, tag=i) for i, v in ((1, 0.2), (0, 0.1))])
    assert done == [Finish()]
    assert [rewards.values[index] for index in range(3)] == [0.1, 0.2, 0.3]


def test_one_that_cannot_be_valued_ends_it_and_nothing_to_value_too() -> None:
    rewards = Rewards(["a", "b"])
    rewards.advance(TREE, [Started(root=0)])
    assert rewards.advance(TREE, [Failed(node=0, reason="too long", tag=1)]) == [Finish()]
    assert rewards.failure == "too long"
    assert Rewards([]).advance(TREE, [Started(root=0)]) == [Finish()]
