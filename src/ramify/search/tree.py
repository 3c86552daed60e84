"""The logical tree of one request: what was generated, from where, with which fate.

Positions in the KV cache are the engine's business; this tree outlives them, so a pruned or
finished branch can still be read, shown and exported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ramify.core.outputs import FinishReason, TokenLogprob
from ramify.core.structured import StructuredOutput
from ramify.search.grown import GrownNodes, Level


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
    """The one implementation of `TreeView`; the engine writes it, controllers only read.

    Nodes of fronts are columns (grown.py) until somebody looks at them.
    """

    def __init__(self, prompt_ids: list[int], prompt: str, seed: int) -> None:
        self.root = 0
        self.generated_tokens = 0
        self.elapsed_s = 0.0
        self._num_nodes = 1
        self._nodes = {
            0: LogicalNode(id=0, parent=None, seed=seed, token_ids=list(prompt_ids), text=prompt)
        }
        self._grown = GrownNodes()
        self._appended_to: set[int] = set()  # parents of nodes that were not grown

    def __getitem__(self, node: int) -> LogicalNode:
        found = self._nodes.get(node)
        return self._make(node) if found is None else found

    def __contains__(self, node: object) -> bool:
        return node in range(self._num_nodes)

    def __iter__(self) -> Iterator[LogicalNode]:
        return map(self.__getitem__, range(self._num_nodes))

    def __len__(self) -> int:
        return self._num_nodes

    @property
    def num_tokens(self) -> int:
        """Tokens of all nodes, prompt included."""
        grown = self._grown
        others = (len(n.token_ids) for n in self._nodes.values() if grown.level_of(n.id) is None)
        return grown.num_nodes + sum(others)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────
    def add(self, parent: int, *, seed: int, tag: object = None) -> LogicalNode:
        """Hang a new growing node under `parent`; its path log-probability starts from there."""
        above = self[parent]
        node = LogicalNode(
            id=self._num_nodes,
            parent=parent,
            seed=seed,
            cumulative_logprob=above.cumulative_logprob,
            tag=tag,
        )
        self._nodes[node.id] = node
        self._num_nodes += 1
        above.children.append(node.id)
        self._appended_to.add(parent)
        return node

    def grow(
        self,
        parents: Sequence[int],
        tokens: Sequence[int],
        logprobs: Sequence[float],
        structured: StructuredOutput | None,
        text_of: Callable[[int], str],
    ) -> list[int]:
        """Hang a growing node of one token under each of `parents`: the next level of a front.

        Their seeds are those of given tokens.

        Args:
            parents: nodes that were grown last, or one that was looked at.
            logprobs: cumulative log-probability of each path, natural log.
            text_of: a token's text.
        """
        begin, end = self._num_nodes, self._num_nodes + len(parents)
        children = list(range(begin, end))
        level = Level(begin, end, structured, text_of)
        self._grown.add(level, parents, tokens, logprobs, NodeState.GROWING)
        self._num_nodes = end
        if known := self._nodes.keys() & set(parents):
            for child, parent in zip(children, parents, strict=True):
                if parent in known:
                    self._nodes[parent].children.append(child)
        return children

    def mark(self, nodes: Collection[int], state: NodeState) -> None:
        """Set the state of grown nodes."""
        states = self._grown.state
        for node in nodes:
            states[node] = state
        for node in self._nodes.keys() & nodes:
            self._nodes[node].state = state

    def prune_grown(self, nodes: Iterable[int], keep: Collection[int]) -> None:
        """Prune grown nodes that lead nowhere, and every node above that only led there.

        Args:
            keep: nodes that stay although they lead nowhere; none of `nodes`.
        """
        parent, num_living = self._grown.parent, self._grown.num_living
        pruned = []
        for node in nodes:
            leads_on = False
            while not leads_on:
                pruned.append(node)
                node = parent[node]
                num_living[node] -= 1
                leads_on = node in keep or self.leads_on(node)
        self.mark(pruned, NodeState.PRUNED)

    def prune_growing(self, keep: Collection[int] = ()) -> None:
        """Prune all nodes that are still growing but those to `keep`."""
        for node in self._nodes.values():
            if node.state is NodeState.GROWING and node.id not in keep:
                node.state = NodeState.PRUNED
        states = self._grown.state
        for place, state in enumerate(states):
            if state is NodeState.GROWING and place not in keep:
                states[place] = NodeState.PRUNED

    def leads_on(self, node: int) -> bool:
        """Whether a child of a grown node lives; a controller may have appended some too."""
        if self._grown.num_living[node]:
            return True
        return node in self._appended_to and any(
            self[child].state is not NodeState.PRUNED for child in self[node].children
        )

    def _make(self, node: int) -> LogicalNode:
        """The object of a grown node; from now on it tells what becomes of the node."""
        grown, level = self._grown, self._grown.level_of(node)
        if level is None:
            raise KeyError(node)
        state, parent, token = grown.state[node], grown.parent[node], grown.token[node]
        assert state is not None, "a grown node has a state"
        above = self._nodes.get(parent)
        total, sums = grown.cumulative_logprob[node], grown.cumulative_logprob
        made = self._nodes[node] = LogicalNode(
            id=node,
            parent=parent,
            seed=grown.seed_of(node, self._seed_of),
            state=state,
            token_ids=[token],
            text=level.text_of(token),
            cumulative_logprob=total,
            token_logprobs=[total - (sums[parent] if above is None else above.cumulative_logprob)],
            structured=level.structured,
            children=grown.children_of(node),
        )
        return made

    def _seed_of(self, node: int) -> int | None:
        known = self._nodes.get(node)
        return None if known is None else known.seed

    # ── reading ──────────────────────────────────────────────────────────────────────────────────
    def path(self, node: int) -> list[LogicalNode]:
        """Nodes from the root down to `node`, both included."""
        nodes = []
        at: int | None = node
        while at is not None:
            nodes.append(self[at])
            at = nodes[-1].parent
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
            tokens = self[at].token_ids[-count:] + tokens
            at = self[at].parent
        return tokens[-count:]

    def subtree(self, node: int) -> list[LogicalNode]:
        """`node` and everything below it, parents before children."""
        found = [self[node]]
        for step in found:
            found.extend(self[child] for child in step.children)
        return found
