"""What can be read of one node of a live tree, and of what its path has cost."""

from __future__ import annotations

from typing import Self

from ramify.core.outputs import TokenLogprob, Usage
from ramify.engine.engine import Engine
from ramify.engine.request import Request
from ramify.search.tree import LogicalNode, NodeState


class NodeView:
    """One node of a tree as it is now; pruned nodes and finished trees can be read as well."""

    def __init__(self, engine: Engine, request: Request, node: int) -> None:
        self._engine = engine
        self._request = request
        self._id = node

    @property
    def id(self) -> int:
        """The node's number in its tree; the root is 0."""
        return self._id

    @property
    def request_id(self) -> int:
        """The engine's number for the tree, which `LLM.abort` takes."""
        return self._request.id

    @property
    def _node(self) -> LogicalNode:
        return self._request.tree[self._id]

    @property
    def text(self) -> str:
        """Text of this node alone."""
        return self._node.text

    @property
    def token_ids(self) -> list[int]:
        """Tokens of this node alone."""
        return list(self._node.token_ids)

    @property
    def completion(self) -> str:
        """Text of the path after the prompt."""
        return self._request.tree.completion_text(self._id)

    @property
    def path_token_ids(self) -> list[int]:
        """All tokens of the path, prompt included."""
        return [*self._request.prompt_ids, *self._request.tree.completion_ids(self._id)]

    @property
    def cumulative_logprob(self) -> float:
        """Log-probability of the path after the prompt (natural log)."""
        return self._node.cumulative_logprob

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """Per token of this node, when they were asked for."""
        return self._node.logprobs

    @property
    def token_logprobs(self) -> list[float] | None:
        """Natural log, one per token of this node; None for given tokens if not asked for."""
        return self._node.known_logprobs

    @property
    def marked(self) -> float | None:
        """The score that `mark` gave the node, or None."""
        return self._node.score

    @property
    def finish_reason(self) -> str | None:
        """Why the node ended: stop, length, or None for given tokens."""
        return self._node.finish_reason

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string or stop token that ended the node, if one did."""
        return self._node.stop_reason

    @property
    def seed(self) -> int:
        """The seed this branch draws with."""
        return self._node.seed

    @property
    def state(self) -> str:
        """growing, idle, closed or pruned."""
        return self._node.state.value

    @property
    def parent(self) -> Self | None:
        """The node above, or None at the root."""
        above = self._node.parent
        return None if above is None else self._at(above)

    @property
    def children(self) -> list[Self]:
        """The nodes below, pruned ones left out."""
        nodes = (self._request.tree[child] for child in self._node.children)
        return [self._at(node.id) for node in nodes if node.state is not NodeState.PRUNED]

    @property
    def usage(self) -> Usage:
        """What the whole tree has cost so far."""
        return self._request.usage

    def _at(self, node: int) -> Self:
        return type(self)(self._engine, self._request, node)
