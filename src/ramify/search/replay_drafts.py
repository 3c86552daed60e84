"""Replay of recorded speculative decoding: a draft is verified every step, and cut to what counts.

The model says which token follows the last accepted one; that is token 0 of the next draft, and
what hangs below it is made up, as a small model would propose it. How many tokens a step accepts is
what the record says, along the deepest path of the structure. An accepted token was computed in the
step that accepted it, so nothing is computed twice.
Source: Medusa (Cai et al. 2024) as recorded by DeFT (Yao et al., ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from ramify.core.errors import InputError, expected_got
from ramify.search.controller import (
    Action,
    Appended,
    AppendTree,
    Close,
    Event,
    Failed,
    Finish,
    Prune,
    Score,
    Scored,
    Started,
)
from ramify.search.drafts import RecordedDrafts
from ramify.search.tree import TreeView


class ReplayDrafts:
    """Generate by drafts of the recorded structure, step after step; its output is one branch.

    Args:
        generate: tokens to accept; the last step may bring a few more.
        vocab_size: made-up tokens are below it.
        record: whose accepted lengths, repeated from their start where they end.
    Raises:
        InputError: no such record, or one that accepts more than the structure's deepest path.
    """

    def __init__(
        self, drafts: RecordedDrafts, *, generate: int, vocab_size: int, record: int = 0
    ) -> None:
        self._places, self._parent = deepest_first(drafts.parent)
        num_steps = len(drafts.contexts(record, 0, generate))
        self._accepted = list(islice(cycle(drafts.accepted[record]), num_steps))
        most = max(self._accepted, default=0)
        if most > len(self._places):
            wanted = f"at most {len(self._places)} accepted a step, the deepest path"
            raise InputError(expected_got(f"record {record}", wanted, most))
        self._vocab_size = vocab_size
        self._step = 0
        self._tip = 0  # the last accepted node
        self._next = 0  # the token the model has follow it
        self._drafted: dict[int, int] = {}  # place -> node, of the tokens computed

    @property
    def num_steps(self) -> int:
        """Drafts to verify."""
        return len(self._accepted)

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Ask what follows the prompt; then draft, and go on once a whole draft is computed."""
        for event in events:
            if isinstance(event, Failed):
                return [Finish(outputs=(self._tip,), stats={"failed": event.reason})]
            if isinstance(event, Started):
                self._tip = event.root
                return [Score(node=event.root, top=1)]
            if isinstance(event, (Scored, Appended)) and event.top:
                self._next = event.top[0][0]
            if isinstance(event, Appended):
                assert isinstance(event.tag, int), "tokens of a tree are tagged with their places"
                self._drafted[event.tag] = event.node
        if not self._drafted:
            return self._draft()
        return self._accept() if len(self._drafted) == len(self._parent) else []

    def _draft(self) -> list[Action]:
        """The tokens of the next draft below the last accepted one, or the end."""
        if self._step == self.num_steps:
            return [Finish(outputs=(self._tip,), stats={"steps": self._step})]
        tokens = tuple((self._next + i) % self._vocab_size for i in range(len(self._parent)))
        last = self._accepted[self._step] - 1
        return [AppendTree(node=self._tip, tokens=tokens, parent=self._parent, ask=(last,))]

    def _accept(self) -> list[Action]:
        """Cut all but the accepted path, whose nodes may then merge, and draft below its end."""
        count = self._accepted[self._step]
        path = [self._tip, *(self._drafted[place] for place in range(count))]
        rejected = [p for p in range(count, len(self._parent)) if self._parent[p] < count]
        cuts: list[Action] = [Prune(node=self._drafted[place]) for place in rejected]
        cuts += [Close(node=node) for node in path[:-1]]
        self._tip = path[-1]
        self._drafted.clear()
        self._step += 1
        return [*cuts, *self._draft()]


def deepest_first(parent: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
    """The same tree with its deepest path at places 0, 1, ...: that path, and the new parents.

    A path whose tokens are computed and stored one behind the other stays contiguous in the cache.
    """
    depth: list[int] = []
    for above in parent:
        depth.append(0 if above < 0 else depth[above] + 1)
    path = [depth.index(max(depth))]
    while parent[path[0]] >= 0:
        path.insert(0, parent[path[0]])
    order = path + [place for place in range(len(parent)) if place not in path]
    moved = {place: index for index, place in enumerate(order)}
    return path, tuple(-1 if parent[place] < 0 else moved[parent[place]] for place in order)
