"""Trees by hand: node handles that grow, ask, fork and prune a live tree between calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import ScoreOutput
from ramify.core.params import SamplingParams
from ramify.engine.cut import fork_at, rewind_to
from ramify.engine.exporting import export_request
from ramify.engine.node_view import NodeView
from ramify.engine.perform import perform
from ramify.engine.pins import Pin
from ramify.export import ExportedTree
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
    Mark,
    Prune,
    Score,
    Scored,
    Spawned,
)
from ramify.search.tree import TreeView

E = TypeVar("E", bound=Event)


class Manual:
    """The controller of a tree that is grown by hand: it keeps the events and decides nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Keep the events for the handle that waits for them."""
        self.events.extend(events)
        return []


class NodeHandle(NodeView):
    """One node of a live tree. Calls block until the model has done what they ask.

    The KV of a node stays while its handle's tree is open, unless memory runs short: then it is
    dropped and recomputed when it is needed again, except on pinned trees.
    """

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

    def mark(self, score: float) -> None:
        """Attach a score, for exports and for whoever reads the tree."""
        self._perform(Mark(node=self._id, score=float(score)))

    def reward(self, suffix: str | Sequence[int] = ()) -> float:
        """What the reward model makes of the path to here, with a suffix; leaves no trace."""
        given = suffix if isinstance(suffix, str) else tuple(suffix)
        self._perform(Score(node=self._id, suffix=given, reward=True))
        (event,) = self._wait(Scored, 1)
        assert event.value is not None, "a value was asked for"
        return event.value

    # ── forking, rewinding, holding ──────────────────────────────────────────────────────────────
    def fork(self, at: int) -> NodeHandle:
        """A new node whose path is the first `at` tokens of this one's; no KV is copied.

        Raises InputError unless the prompt's length <= at <= the path's length. A shorter prompt is
        another tree: `LLM.tree` with its tokens finds their KV cached.
        """
        self._settle()
        return self._at(fork_at(self._engine.live, self._request, self._id, at).id)

    def rewind(self, n: int | None = None, *, to: int | None = None) -> NodeHandle:
        """Take back the last `n` tokens of the path, or all behind its first `to` tokens.

        The KV of the tokens before stays, and nothing is recomputed. This handle becomes the
        shortened branch and is returned; nodes above stay as they are, also those that it rewinds
        past. What is grown from it then is new: its seed is another one.

        Raises InputError when not exactly one of both is given, for a position outside of
        [the prompt's length, the path's length], and when nodes live below this one.
        """
        if (n is None) == (to is None):
            got = "none" if n is None else "both"
            raise InputError(expected_got("rewind", "either n or to", got))
        self._settle()
        length = len(self.path_token_ids)
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 0):
            raise InputError(expected_got("n", "an int >= 0", repr(n)))
        end = length - n if n is not None else to
        if end != length:
            assert end is not None, "one of both was given"
            made = rewind_to(self._engine.live, self._request, self._id, end)
            self._id = made.id
        return self

    def pin(self, ttl: float | None = None) -> Pin:
        """Hold the KV of this node's path in the pool for `ttl` seconds; None: until `unpin`.

        It outlives the tree: a prompt that begins with the path finds it cached. A second pin of
        the node replaces the first. Where a request would otherwise fail for want of slots, pins
        yield, those that end first before others; `Pin.state` says so.

        Raises InputError for a time that is no finite number above 0.
        """
        self._settle()
        live = self._engine.live
        cursor = live.path_of(self._request, self._id)
        return live.pins.hold(self._request.id, self._id, cursor, ttl)

    def unpin(self) -> None:
        """Let go of this node's pin now, if it has one; also when the tree is finished."""
        self._engine.live.pins.release(self._request.id, self._id)

    def export(self) -> ExportedTree:
        """The whole tree as it is now, finished or not, as a document to save, load and show."""
        self._engine.settle()
        return export_request(self._engine, self._request)

    # ── endings ──────────────────────────────────────────────────────────────────────────────────
    def prune(self) -> int:
        """Cut this node and everything below it now; returns the KV bytes freed."""
        if self._id == self._request.tree.root:
            return self.finish()
        slots = self._engine.live.prune(self._request, self._id)
        return slots * self._engine.executor.kv_bytes_per_token

    def close(self) -> None:
        """Promise not to grow from this node again, so that it may merge with what hangs below."""
        self._perform(Close(node=self._id))

    def finish(self, outputs: Sequence[NodeHandle] = ()) -> int:
        """End the whole tree; returns the KV bytes freed.

        `outputs`, best first, are what exports mark as results. Their paths and the prompt stay in
        the prefix cache. Raises InputError if one of them was pruned.
        """
        cache = self._engine.cache
        before = cache.available
        if not self._request.is_done:
            self._perform(Finish(outputs=tuple(node.id for node in outputs)))
        return (cache.available - before) * self._engine.executor.kv_bytes_per_token

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────
    def _check_open(self) -> None:
        if self._request.is_done:
            raise InputError(expected_got("tree", "an open tree", "a finished one"))

    def _settle(self) -> None:
        """Have everything written down that was computed; raise InputError if the tree is over."""
        self._engine.settle()
        self._check_open()

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
