"""Replay of a recorded tree: branches grow and are cut in the iterations the record says.

A token is computed in the step after it was sampled. So a node's `Expand`, answered with its last
token still to be computed, samples the children's first tokens in iteration `end`, and they are
computed from `end` + 1 on; a leaf's last token is computed by an empty `Score` in iteration `end`,
and then the leaf is cut, with every ancestor that held nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.controller import (
    Action,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Prune,
    Score,
    Scored,
    Spawned,
    Started,
)
from ramify.search.recorded import RecordedTree
from ramify.search.tree import TreeView


class Replay:
    """Grow a tree of the recorded shape; what the tokens are does not matter.

    Every node runs to its recorded length: stops are ignored. The prompt must have
    `recorded.root.value` tokens. Empty leaves are left out. Finishes with no output when the last
    leaf is cut. Raises InputError on `Started` for a prompt of another length.
    """

    def __init__(self, recorded: RecordedTree, params: SamplingParams | None = None) -> None:
        self.recorded = recorded
        self._params = replace(
            params or SamplingParams(),
            ignore_eos=True,
            stop=None,
            stop_token_ids=(),
            min_tokens=0,
        )
        self._record = {node.id: node for node in recorded.nodes}
        self._children = {
            node.id: [child for child in node.children if self._record[child].value]
            for node in recorded.nodes
        }
        self._num_live = {node: len(children) for node, children in self._children.items()}
        self._recorded_id: dict[int, int] = {}  # node of the tree -> node of the record

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Start children where a node ends, cut leaves that are computed."""
        actions: list[Action] = []
        for event in events:
            if isinstance(event, Failed):
                return [Finish(stats={"failed": event.reason})]
            if isinstance(event, Started):
                actions.extend(self._start(tree, event.root))
            elif isinstance(event, Spawned):
                assert isinstance(event.tag, int), "every expansion is tagged with its record"
                self._recorded_id[event.nodes[0]] = event.tag
            elif isinstance(event, Finished):
                actions.extend(self._branch(event.node))
            elif isinstance(event, Scored):
                actions.append(self._cut(tree, event.node))
        return actions

    def _start(self, tree: TreeView, root: int) -> list[Action]:
        wanted, got = self.recorded.root.value, len(tree[root].token_ids)
        if wanted != got:
            raise InputError(expected_got("prompt", f"{wanted} tokens, as recorded", got))
        self._recorded_id[root] = self.recorded.root.id
        return self._branch(root)

    def _branch(self, node: int) -> list[Action]:
        """The children of a node whose tokens are all sampled; a leaf asks for its last token."""
        children = self._children[self._recorded_id[node]]
        if not children:
            return [Score(node=node)]
        return [
            Expand(
                node=node,
                k=1,
                params=replace(self._params, max_tokens=self._record[child].value),
                tag=child,
            )
            for child in children
        ]

    def _cut(self, tree: TreeView, node: int) -> Action:
        """Prune a computed leaf with the ancestors it leaves childless; the root's end is all."""
        while (parent := tree[node].parent) is not None:
            above = self._recorded_id[parent]
            self._num_live[above] -= 1
            if self._num_live[above]:
                return Prune(node=node)
            node = parent
        return Finish(stats={"nodes": len(self._recorded_id)})
