"""A tree that grows a token per branch and step, forks and is pruned, as lists.

Every node has room for all it may grow, so its next token lies in the slot after its last: what
`TreeAttention.advance` asks of the cache.
"""

from __future__ import annotations

import numpy as np

from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest


class GrowingTree:
    """A prompt with branches of one token each.

    Args:
        room: slots of every node but the prompt: the most tokens that it may come to.
    """

    def __init__(self, branches: int, prompt: int, *, room: int = 2048, seed: int = 0) -> None:
        self.parent = [-1] + [0] * branches
        self.length = [prompt] + [1] * branches
        self.tips = list(range(1, branches + 1))
        self._prompt = prompt
        self._room = room
        self._rng = np.random.default_rng(seed)

    @classmethod
    def of_size(
        cls, branches: int, nodes: int, prompt: int, *, room: int = 2048, seed: int = 0
    ) -> GrowingTree:
        """A tree of so many live branches and nodes, by forks at random.

        Raises InputError for numbers that no such tree has, or a prompt without tokens.
        """
        if branches < 1:
            raise InputError(expected_got("branches", "at least 1", branches))
        if prompt < 1:
            raise InputError(expected_got("prompt", "at least 1", prompt))
        if not branches + 1 <= nodes <= 2 * branches:
            wanted = f"{branches + 1} to {2 * branches} for {branches} branches"
            raise InputError(expected_got("nodes", wanted, nodes))
        forks = nodes - 1 - branches
        tree = cls(branches - forks, prompt, room=room, seed=seed)
        for _ in range(forks):
            tree.fork()
        return tree

    def append(self) -> None:
        """One more token for every branch."""
        for tip in self.tips:
            self.length[tip] += 1
            assert self.length[tip] <= self._room, "a node has outgrown its room"

    def fork(self) -> None:
        """One branch, at random, becomes two of a token each."""
        tip = self._take_tip()
        first = len(self.parent)
        self.parent += [tip, tip]
        self.length += [1, 1]
        self.tips += [first, first + 1]

    def prune(self) -> None:
        """One branch less, unless it is the last."""
        if len(self.tips) > 1:
            self._take_tip()

    def change(self, nodes: int) -> None:
        """Let about so many nodes come and go: two with each fork, one with each cut."""
        for _ in range(max(1, nodes // 3)):
            self.fork()
            self.prune()

    def forest(self) -> Forest:
        """What is live now: the tips and what is above them. Never the same object twice."""
        live = sorted(self._above_tips())
        index = {node: place for place, node in enumerate(live)}
        begin = [0 if node == 0 else self._prompt + (node - 1) * self._room for node in live]
        length = np.array([self.length[node] for node in live], dtype=np.int64)
        tips = np.array([index[tip] for tip in self.tips], dtype=np.int64)
        return Forest(
            parent=np.array([index.get(self.parent[n], -1) for n in live], dtype=np.int32),
            length=length,
            run_indptr=np.arange(len(live) + 1, dtype=np.int64),
            run_begin=np.array(begin, dtype=np.int64),
            run_len=length,
            query_node=tips,
            query_len=length[tips],
        )

    def _take_tip(self) -> int:
        return self.tips.pop(int(self._rng.integers(len(self.tips))))

    def _above_tips(self) -> set[int]:
        live: set[int] = set()
        for tip in self.tips:
            node = tip
            while node >= 0 and node not in live:
                live.add(node)
                node = self.parent[node]
        return live
