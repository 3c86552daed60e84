"""Trees by hand: node handles that grow, ask, fork and prune a live tree between calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import ScoreOutput, TokenLogprob, Usage
from ramify.core.params import SamplingParams
from ramify.core.seeds import child_seed
from ramify.engine.engine import Engine
from ramify.engine.perform import perform
from ramify.engine.request import Request
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    Close,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Prune,
    Score,
    Scored,
    Spawned,
)
from ramify.search.tree import LogicalNode, NodeState, TreeView

E = TypeVar("E", bound=Event)

FORK_SEEDS = 1 << 32
"""Offset of the child indices used by `fork`, clear of those that `expand` counts from 0."""


class Manual:
    """The controller of a tree that is grown by hand: it keeps the events and decides nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Keep the events for the handle that waits for them."""
        self.events.extend(events)
        return []


class NodeHandle:
    """One node of a live tree. Calls block until the model has done what they ask.

    The KV of a node stays while its handle's tree is open, unless memory runs short: then it is
    dropped and recomputed when it is needed again, except on pinned trees.
    """

    def __init__(self, engine: Engine, request: Request, node: int) -> None:
        self._engine = engine
        self._request = request
        self._id = node

    # ── reading ──────────────────────────────────────────────────────────────────────────────────
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
    def parent(self) -> NodeHandle | None:
        """The node above, or None at the root."""
        above = self._node.parent
        return None if above is None else self._at(above)

    @property
    def children(self) -> list[NodeHandle]:
        """The nodes below, pruned ones left out."""
        nodes = (self._request.tree[child] for child in self._node.children)
        return [self._at(node.id) for node in nodes if node.state is not NodeState.PRUNED]

    @property
    def usage(self) -> Usage:
        """What the whole tree has cost so far."""
        return self._request.usage

    # ── growing ──────────────────────────────────────────────────────────────────────────────────
    def expand(self, k: int, params: SamplingParams | None = None) -> list[NodeHandle]:
        """Grow k new branches from here until each stops; returns them in order.

        Raises InputError on a closed or pruned node, bad parameters or a full context.
        """
        self._perform(Expand(node=self._id, k=k, params=params or SamplingParams()))
        (spawned,) = self._wait(Spawned, 1)
        ended = self._wait(Finished, k)
        assert {e.node for e in ended} == set(spawned.nodes), "foreign branches ended"
        return [self._at(node) for node in spawned.nodes]

    def append(self, tokens: str | Sequence[int], *, logprobs: int | None = None) -> NodeHandle:
        """Make a child of given text or tokens and compute it."""
        given = tokens if isinstance(tokens, str) else tuple(tokens)
        self._perform(Append(node=self._id, tokens=given, logprobs=logprobs))
        (event,) = self._wait(Appended, 1)
        return self._at(event.node)

    def score(self, continuations: Sequence[str | Sequence[int]]) -> list[ScoreOutput]:
        """Log-probabilities of continuations of this node; the tree is left as it was."""
        for tokens in continuations:
            given = tokens if isinstance(tokens, str) else tuple(tokens)
            self._perform(Append(node=self._id, tokens=given, logprobs=0))
        events = sorted(self._wait(Appended, len(continuations)), key=lambda e: e.node)
        outputs = []
        for event in events:
            ids = list(self._request.tree[event.node].token_ids)
            outputs.append(ScoreOutput(token_ids=ids, token_logprobs=list(event.logprobs)))
            self._perform(Prune(node=event.node))
        return outputs

    def ask(self, suffix: str, labels: Sequence[str | int]) -> list[float]:
        """Log-probabilities of single-token labels after `suffix` here; leaves no trace."""
        self._perform(Score(node=self._id, suffix=suffix, labels=tuple(labels)))
        (event,) = self._wait(Scored, 1)
        return list(event.logprobs)

    def reward(self, suffix: str | Sequence[int] = ()) -> float:
        """What the reward model makes of the path to here, with a suffix; leaves no trace."""
        given = suffix if isinstance(suffix, str) else tuple(suffix)
        self._perform(Score(node=self._id, suffix=given, reward=True))
        (event,) = self._wait(Scored, 1)
        assert event.value is not None, "a value was asked for"
        return event.value

    def fork(self, at: int) -> NodeHandle:
        """A new node whose path is the first `at` tokens of this one's; no KV is copied.

        Raises InputError unless the prompt's length <= at <= the path's length.
        """
        self._check_open()
        tree, prompt = self._request.tree, len(self._request.prompt_ids)
        length = len(self.path_token_ids)
        if not isinstance(at, int) or not prompt <= at <= length:
            raise InputError(expected_got("at", f"an int in [{prompt}, {length}]", repr(at)))
        cursor = self._engine.live.path_of(self._request, self._id)
        begin, step = 0, tree[tree.root]
        for step in tree.path(self._id):
            if begin + len(step.token_ids) >= at:
                break
            begin += len(step.token_ids)
        above = tree.root if step.parent is None else step.parent
        index = FORK_SEEDS + self._request.next_fork(step.id)
        node = tree.add(above, seed=child_seed(step.seed, index))
        if step.parent is not None:
            node.token_ids = step.token_ids[: at - begin]
            node.text = self._engine.live.codec.decode(node.token_ids)
            known = step.logprobs[: at - begin] if step.logprobs else []
            node.cumulative_logprob += sum(t.logprob for t in known)
        node.state = NodeState.IDLE
        self._request.cursors[node.id] = self._engine.cache.fork(cursor, at)
        return self._at(node.id)

    def prune(self) -> int:
        """Cut this node and everything below it now; returns the KV bytes freed."""
        if self._id == self._request.tree.root:
            return self.finish()
        slots = self._engine.live.prune(self._request, self._id)
        return slots * self._engine.executor.kv_bytes_per_token

    def close(self) -> None:
        """Promise not to grow from this node again, so that it may merge with what hangs below."""
        self._perform(Close(node=self._id))

    def finish(self) -> int:
        """End the whole tree; the prompt stays in the prefix cache. Returns the KV bytes freed."""
        cache = self._engine.cache
        before = cache.available
        if not self._request.is_done:
            self._perform(Finish())
        return (cache.available - before) * self._engine.executor.kv_bytes_per_token

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────
    def _at(self, node: int) -> NodeHandle:
        return NodeHandle(self._engine, self._request, node)

    def _check_open(self) -> None:
        if self._request.is_done:
            raise InputError(expected_got("tree", "an open tree", "a finished one"))

    def _perform(self, action: Action) -> None:
        self._check_open()
        perform(self._engine.live, self._request, action)

    def _wait(self, kind: type[E], count: int) -> list[E]:
        """Run the engine until `count` events of a kind came; raise what went wrong instead."""
        found: list[E] = []
        controller = self._request.controller
        assert isinstance(controller, Manual), "handles need a tree opened by LLM.tree"
        while True:
            kept: list[Event] = []
            self._engine.deliver(self._request)
            for event in controller.events:
                if isinstance(event, Failed):
                    controller.events = []
                    raise InputError(expected_got("node", "room for growth", event.reason))
                if isinstance(event, kind) and len(found) < count:
                    found.append(event)
                else:
                    kept.append(event)
            controller.events = kept
            if len(found) == count:
                return found
            if self._request.error is not None:
                raise self._request.error
            self._engine.step()
