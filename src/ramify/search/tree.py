"""The logical tree of one request: what was generated, from where, with which fate.

Positions in the KV cache are the engine's business; this tree outlives them, so a pruned or
finished branch can still be read, shown and exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ramify.core.outputs import FinishReason, TokenLogprob
from ramify.core.structured import StructuredOutput


class NodeState(Enum):
    """Where a node is in its life."""

    GROWING = "growing"  # tokens are being generated or computed
    IDLE = "idle"  # complete; may be grown from
    CLOSED = "closed"  # complete; only its descendants matter
    PRUNED = "pruned"  # cut, its KV is gone


@dataclass(slots=True, kw_only=True)
class LogicalNode:
    """A span of tokens grown in one go."""

    id: int
    parent: int | None
    seed: int
    state: NodeState = NodeState.GROWING
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    cumulative_logprob: float = 0.0  # of the whole path below the root, natural log
    token_logprobs: list[float] = field(default_factory=list)  # natural log; of given tokens: none
    logprobs: list[TokenLogprob] | None = None  # the same with alternatives, when asked for
    forked_from: int | None = None  # the node whose first tokens this one shares
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    score: float | None = None
    structured: StructuredOutput | None = None  # what its tokens were chosen to follow
    reward: float | None = None  # what the reward model made of the path, if it was asked
    children: list[int] = field(default_factory=list)
    tag: object = None

    @property
    def known_logprobs(self) -> list[float] | None:
        """Natural log, one per token; None where they are not all known."""
        is_known = len(self.token_logprobs) == len(self.token_ids)
        return list(self.token_logprobs) if is_known else None


class TreeView(Protocol):
    """What a controller may read of its tree."""

    @property
    def root(self) -> int: ...
    @property
    def generated_tokens(self) -> int:
        """Tokens sampled so far, pruned branches included."""
        ...

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived, by the engine's clock."""
        ...

    def __getitem__(self, node: int) -> LogicalNode: ...
    def __iter__(self) -> Iterator[LogicalNode]: ...
    def path(self, node: int) -> list[LogicalNode]:
        """Nodes from the root down to `node`, both included."""
        ...

    def completion_ids(self, node: int) -> list[int]:
        """Tokens after the prompt on the path to `node`."""
        ...

    def completion_text(self, node: int) -> str:
        """Text after the prompt on the path to `node`."""
        ...


class LogicalTree:
    """The one implementation of `TreeView`; the engine writes it, controllers only read."""

    def __init__(self, prompt_ids: list[int], prompt: str, seed: int) -> None:
        self.root = 0
        self.generated_tokens = 0
        self.elapsed_s = 0.0
        self._nodes = {
            0: LogicalNode(id=0, parent=None, seed=seed, token_ids=list(prompt_ids), text=prompt)
        }

    def __getitem__(self, node: int) -> LogicalNode:
        return self._nodes[node]

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[LogicalNode]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, parent: int, *, seed: int, tag: object = None) -> LogicalNode:
        """Hang a new growing node under `parent`; its path log-probability starts from there."""
        above = self._nodes[parent]
        node = LogicalNode(
            id=len(self._nodes),
            parent=parent,
            seed=seed,
            cumulative_logprob=above.cumulative_logprob,
            tag=tag,
        )
        self._nodes[node.id] = node
        above.children.append(node.id)
        return node

    def path(self, node: int) -> list[LogicalNode]:
        """Nodes from the root down to `node`, both included."""
        nodes = []
        at: int | None = node
        while at is not None:
            nodes.append(self._nodes[at])
            at = self._nodes[at].parent
        return nodes[::-1]

    def path_length(self, node: int) -> int:
        """Tokens of the path to `node`, prompt included."""
        return sum(len(step.token_ids) for step in self.path(node))

    def completion_ids(self, node: int) -> list[int]:
        """Tokens after the prompt on the path to `node`."""
        return [token for step in self.path(node)[1:] for token in step.token_ids]

    def completion_text(self, node: int) -> str:
        """Text after the prompt on the path to `node`."""
        return "".join(step.text for step in self.path(node)[1:])

    def tail(self, node: int, count: int) -> list[int]:
        """The last `count` tokens of the path to `node`, prompt included; fewer if it is short."""
        tokens: list[int] = []
        at: int | None = node
        while at is not None and len(tokens) < count:
            tokens = self._nodes[at].token_ids[-count:] + tokens
            at = self._nodes[at].parent
        return tokens[-count:]

    def subtree(self, node: int) -> list[LogicalNode]:
        """`node` and everything below it, parents before children."""
        found = [self._nodes[node]]
        for step in found:
            found.extend(self._nodes[child] for child in step.children)
        return found
