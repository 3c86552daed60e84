"""One request inside the engine: its logical tree, its controller, its live paths and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.cache import Cursor
from ramify.core.outputs import TokenLogprob, Usage
from ramify.core.params import SamplingParams
from ramify.engine.sample import History
from ramify.engine.speculation.branch import Drafting
from ramify.engine.structured.state import GrammarState
from ramify.engine.text import TextStream
from ramify.search.controller import (
    Append,
    Candidates,
    Controller,
    Event,
    Expand,
    Finish,
    Finished,
    Score,
    Select,
)
from ramify.search.front import Front
from ramify.search.tree import LogicalTree


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A path whose tokens must be computed, and what its logits are for.

    `cursor` is None until the task is first admitted: a waiting request holds no KV.
    """

    id: int
    request: Request
    node: int  # the logical node the task started from
    cursor: Cursor | None = None
    is_running: bool = False

    @property
    def paths(self) -> Sequence[Cursor]:
        """The paths to compute; none before the task is opened."""
        return () if self.cursor is None else (self.cursor,)

    @property
    def extra_tokens(self) -> int:
        """Tokens the task will add to the node's path when it is opened."""
        return 0

    def wanted(self) -> list[int]:
        """Absolute positions whose logits are still wanted."""
        assert self.cursor is not None, "wanted() before the task was opened"
        return [self.cursor.length - 1]


@dataclass(slots=True, kw_only=True, eq=False)
class Grow(Task):
    """Sample token after token at the tip of a branch."""

    params: SamplingParams
    stream: TextStream
    history: History | None
    grammar: GrammarState | None
    begin: int  # absolute position of the branch's first token
    drafting: Drafting | None = None
    tag: object = None

    @property
    def tokens_to_draft(self) -> int | None:
        """Tokens that come before the next draft; None: the branch is not to be drafted for."""
        if self.drafting is None:
            return None
        return max(self.drafting.gain.resume_at - num_generated(self), 0)


@dataclass(slots=True, kw_only=True, eq=False)
class Fan(Task):
    """Sample the first tokens of the branches of an `Expand`."""

    action: Expand


@dataclass(slots=True, kw_only=True, eq=False)
class Force(Task):
    """Compute the tokens of an `Append` or, with a suffix, of a `Score`.

    `begin` is the absolute position of the first added token; logits at begin - 1 predict it.
    `then` is told in place of the answer to a `Score`: the end of a branch that waits for it.
    """

    action: Append | Score
    tokens: tuple[int, ...]
    then: Finished | None = None
    below: Force | None = None  # of a tree of tokens: the task of the token above
    begin: int = 0
    collected: dict[int, TokenLogprob] = field(default_factory=dict)

    @property
    def extra_tokens(self) -> int:
        return len(self.tokens)

    @property
    def is_valuation(self) -> bool:
        """Whether the reward model is asked."""
        return isinstance(self.action, Score) and self.action.reward

    @property
    def wants_last(self) -> bool:
        """Whether what follows the last token is asked for."""
        return isinstance(self.action, Score) or self.action.top > 0

    def wanted(self) -> list[int]:
        assert self.cursor is not None, "wanted() before the task was opened"
        positions = []
        if isinstance(self.action, Append) and self.action.logprobs is not None:
            inside = range(max(self.begin, 1) - 1, self.cursor.length - 1)
            positions = [at for at in inside if at not in self.collected]
        return positions + ([self.cursor.length - 1] if self.wants_last else [])


@dataclass(slots=True, kw_only=True, eq=False)
class Reveal(Task):
    """Compute the prompt and the log-probabilities of its tokens, before anything else."""

    top: int
    collected: dict[int, TokenLogprob] = field(default_factory=dict)

    def wanted(self) -> list[int]:
        inside = range(len(self.request.prompt_ids) - 1)
        return [at for at in inside if at not in self.collected]


@dataclass(slots=True, kw_only=True, eq=False)
class Beams(Task):
    """Compute a front of branches and rank its continuations; see beams.py.

    It is a task while a `Select` is under way, and keeps the front's paths in between.
    """

    front: Front
    tips: list[Cursor]  # the path of each branch
    grammars: list[GrammarState] = field(default_factory=list)  # of each branch, if there is one
    let_go: list[Cursor] = field(default_factory=list)  # paths to be pruned
    action: Select | None = None
    is_edited: bool = True  # whether the tips are those of the action
    is_written: bool = True  # whether the front's nodes are those of the action too
    num_computed: int = 0  # branches that are computed once the present step is done
    num_ranked: int = 0  # branches whose continuations are in `found`
    found: list[Candidates] = field(default_factory=list)

    @property
    def paths(self) -> Sequence[Cursor]:
        return self.tips

    @property
    def is_due(self) -> bool:
        """Whether a `Select` waits for its answer."""
        return self.id in self.request.tasks


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A tree in the engine from submission to result."""

    id: int
    controller: Controller
    tree: LogicalTree
    prompt: str | None
    arrived_s: float
    is_pinned: bool = False
    is_by_hand: bool = False  # waits for its user between steps
    is_valued: bool = False  # branches that end wait for their reward
    cursors: dict[int, Cursor] = field(default_factory=dict)  # logical node -> its live path
    tasks: dict[int, Task] = field(default_factory=dict)
    beams: Beams | None = None
    # the cache's clock, what it had of the prompt, and what of that no path used
    prompt_match: tuple[int, int, int] = (-1, 0, 0)
    num_forks: dict[int, int] = field(default_factory=dict)  # branches ever grown from a node
    events: list[Event] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    prompt_logprobs: list[TokenLogprob] | None = None
    admitted_s: float | None = None
    finish: Finish | None = None
    error: Exception | None = None
    known_prompt_set: frozenset[int] | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come of this request."""
        return self.finish is not None or self.error is not None

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt's tokens."""
        return self.tree[self.tree.root].token_ids

    @property
    def prompt_set(self) -> frozenset[int]:
        """The prompt's tokens, each once; one object for all branches."""
        if self.known_prompt_set is None:
            self.known_prompt_set = frozenset(self.prompt_ids)
        return self.known_prompt_set

    def next_fork(self, node: int) -> int:
        """Index of the next branch grown from `node`; indices are never used twice."""
        index = self.num_forks.get(node, 0)
        self.num_forks[node] = index + 1
        return index


def cursor_of(task: Task) -> Cursor:
    """The path of a task that was opened."""
    assert task.cursor is not None, "a task of a step has an open path"
    return task.cursor


def num_generated(task: Grow) -> int:
    """Tokens that a branch has got so far."""
    return len(task.request.tree[task.node].token_ids)
