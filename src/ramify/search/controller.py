"""The controller protocol: how an algorithm grows a tree without knowing the engine.

The engine calls `advance(tree, events)` once at the start (with `Started`) and again after every
step that brought events for this tree; the controller answers with actions. It holds no KV, reads
no clock of its own and never imports torch, so it runs against a scripted model in milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from ramify.core.outputs import TokenLogprob
from ramify.core.params import SamplingParams
from ramify.core.structured import StructuredOutput
from ramify.search.tree import TreeView

Tokens: TypeAlias = tuple[int, ...] | str
"""Token ids, or text that the engine encodes without special tokens."""


# ── actions: what a controller asks for ──────────────────────────────────────────────────────────
@dataclass(frozen=True, kw_only=True)
class Expand:
    """Grow k new branches from a node; `Spawned` names them, one `Finished` each ends them."""

    node: int
    k: int
    params: SamplingParams
    tag: object = None


@dataclass(frozen=True, kw_only=True)
class Append:
    """Make a child holding given tokens; `Appended` comes when they are computed.

    `top` asks for that many most probable next tokens after the last one, of those that
    `structured` allows behind the path; `logprobs` asks for the log-probability of each appended
    token with this many alternatives.
    """

    node: int
    tokens: Tokens
    top: int = 0
    structured: StructuredOutput | None = None
    logprobs: int | None = None
    tag: object = None


@dataclass(frozen=True, kw_only=True)
class AppendTree:
    """Hang a tree of given tokens below a node, a child for each, and compute them together.

    Token i hangs below token `parent[i]`, which comes before it, or below `node` itself for -1, and
    sees nothing of the tree but what is above it: the draft of speculative decoding. Each token
    brings an `Appended` tagged with its place i; those of the places in `ask` bring the most
    probable next token too. If the deepest path has no room, one `Failed` comes instead.
    """

    node: int
    tokens: tuple[int, ...]
    parent: tuple[int, ...]
    ask: tuple[int, ...] = ()
    tag: object = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """Ask the model about a node: what follows `suffix` there. Leaves no trace in the tree.

    `Scored` brings the log-probabilities of `labels` (single tokens) and the `top` most probable
    next tokens, of those that `structured` allows behind the node. An empty suffix asks about the
    node itself. With `reward` the engine's reward model is asked instead, and `Scored` brings its
    value alone; without a suffix the node keeps it.
    """

    node: int
    suffix: Tokens = ()
    labels: Sequence[int | str] = ()
    top: int = 0
    structured: StructuredOutput | None = None
    reward: bool = False
    tag: object = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Select:
    """Replace the front, a set of branches that grow in step, by chosen continuations of it.

    Branch i of the new front is a child of `nodes[i]`, a node of the front (at first of `start`
    alone), that holds `tokens[i]`. `Ranked` comes when all are computed; with no nodes the front
    ends and nothing comes. One tree has one front.

    Nodes of the old front and nodes held before are kept idle if they are in `held`; else they are
    closed or, where nothing is left below them, pruned with the ancestors that only led there.

    Attributes:
        start: the node the front grew from; it stays as it is.
        logprobs: [len(nodes)] cumulative log-probability of each branch, natural log.
        top: so many continuations of the new front are asked for, of all its branches together.
        structured: they follow this, behind `start`; the same for all selects of a front. The
            model's tokens that end a text are among them where it may end.
    """

    start: int
    nodes: Sequence[int]
    tokens: Sequence[int]
    logprobs: Sequence[float]
    held: Collection[int] = ()
    top: int
    structured: StructuredOutput | None = None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Attach a score to a node, for results and for whoever watches the tree."""

    node: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Cut a node with everything below it; its KV is freed at once and never cached."""

    node: int


@dataclass(frozen=True, kw_only=True)
class Close:
    """Promise not to grow from this node again; what hangs below it lives on."""

    node: int


@dataclass(frozen=True, kw_only=True)
class Finish:
    """End the search. Every growing branch is cut; `outputs` become the result, best first."""

    outputs: Sequence[int] = ()
    solved: bool = False
    stats: Mapping[str, float | int | str] = field(default_factory=dict)


Action: TypeAlias = Expand | Append | AppendTree | Score | Select | Mark | Prune | Close | Finish


# ── events: what a controller learns ─────────────────────────────────────────────────────────────
@dataclass(frozen=True, kw_only=True)
class Started:
    """The tree exists; `root` holds the prompt."""

    root: int


@dataclass(frozen=True, kw_only=True)
class Spawned:
    """The branches of an `Expand`, each with its first token."""

    parent: int
    nodes: tuple[int, ...]
    tag: object = None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A branch ended by a stop or its length; the tree's node says which."""

    node: int
    tag: object = None


@dataclass(frozen=True, kw_only=True)
class Appended:
    """The child made by an `Append` is computed."""

    node: int
    parent: int
    logprobs: tuple[TokenLogprob, ...] = ()
    top: tuple[tuple[int, float], ...] = ()
    tag: object = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The answer to a `Score`: natural-log probabilities, labels in the order asked."""

    node: int
    logprobs: tuple[float, ...] = ()
    top: tuple[tuple[int, float], ...] = ()
    value: float | None = None
    tag: object = None


class Candidates(NamedTuple):
    """Branches of a front with a token more, best first; equal ones by branch, then by token."""

    branch: np.ndarray  # [n] int64, places in the front
    token: np.ndarray  # [n] int64
    logprob: np.ndarray  # [n] float64, cumulative, above -inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """The front of a `Select` is computed; `best` are its most probable continuations."""

    nodes: Sequence[int]
    best: Candidates


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An action could not be carried out (for instance a path longer than the pool)."""

    node: int
    reason: str
    tag: object = None


Event: TypeAlias = Started | Spawned | Finished | Appended | Scored | Ranked | Failed


def subject(event: Event) -> int:
    """The node an event is about; events about pruned nodes are not delivered."""
    match event:
        case Started():
            return event.root
        case Spawned():
            return event.parent
        case Ranked():
            return event.nodes[0]
        case _:
            return event.node


class Controller(Protocol):
    """Decides how one tree grows. State lives in the controller object; one object, one tree."""

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Answer events with actions; called again only when new events have come."""
        ...
