"""Run a search controller against a scripted model: no engine, no KV, milliseconds.

The run keeps the engine's rules: one token a step for a growing branch, events in node order, seeds
by path; and it raises `ProtocolViolation` at the first action the protocol forbids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ramify.core.outputs import TokenLogprob
from ramify.core.params import SamplingParams
from ramify.core.seeds import child_seed
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    AppendTree,
    Candidates,
    Close,
    Controller,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Mark,
    Prune,
    Ranked,
    Score,
    Scored,
    Select,
    Spawned,
    Started,
    Tokens,
)
from ramify.search.front import Front
from ramify.search.tree import LogicalNode, LogicalTree, NodeState
from ramify.testing.scripted_model import NextLogprobs, ScriptedModel

__all__ = [
    "NextLogprobs",
    "ProtocolViolation",
    "ScriptedModel",
    "ScriptedRun",
    "Step",
    "run_controller",
]


class ProtocolViolation(AssertionError):
    """A controller asked for something the protocol forbids."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step cost: nodes that computed tokens, and tokens held once it was computed."""

    rows: int
    live_tokens: int


@dataclass(kw_only=True)
class _Task:
    """An action under way, with the place of its events among those of the step."""

    action: Expand | Append | Score
    node: int  # where its tokens hang: the new child for an Append


@dataclass
class ScriptedRun:
    """One controller's tree in the making, and afterwards the record of the run."""

    model: ScriptedModel
    prompt: Tokens
    seed: int
    tree: LogicalTree = field(init=False)
    finish: Finish | None = None
    steps: list[Step] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        ids = self.model.encode(self.prompt)
        self.tree = LogicalTree(list(ids), self.model.decode(ids), self.seed)
        self._tasks: list[_Task] = []
        self._growing: dict[int, Expand] = {}
        self._num_computed: dict[int, int] = {}
        self._num_forks: dict[int, int] = {}
        self._failed: list[Event] = []
        self._front: Front | None = None
        self._selected: Select | None = None  # under way

    @property
    def is_busy(self) -> bool:
        """Whether a further step would bring events."""
        return bool(self._tasks or self._growing or self._failed or self._selected)

    @property
    def outputs(self) -> list[str]:
        """Texts of the outputs, best first."""
        assert self.finish is not None, "the run has finished"
        return [self.tree.completion_text(node) for node in self.finish.outputs]

    @property
    def expansions(self) -> list[tuple[str, int]]:
        """Every expansion in the order it was asked for: the text it grows from, and its k."""
        asked = [action for action in self.actions if isinstance(action, Expand)]
        return [(self.tree.completion_text(action.node), action.k) for action in asked]

    @property
    def alive(self) -> list[str]:
        """Texts of all nodes below the root that were not pruned, in order of birth."""
        alive = [
            n.id for n in self.tree if n.state is not NodeState.PRUNED and n.parent is not None
        ]
        return [self.tree.completion_text(node) for node in alive]

    # ── actions ──────────────────────────────────────────────────────────────────────────────────
    def perform(self, actions: Sequence[Action]) -> None:
        """Carry out what a controller asked for, in order."""
        for action in actions:
            _expect(self.finish is None, "no action after Finish", action)
            self.actions.append(action)
            if isinstance(action, Finish):
                self._end(action)
                continue
            if isinstance(action, Select):
                self._select(action)
                continue
            _expect(action.node in self.tree, "a node of the tree", action)
            node = self.tree[action.node]
            _expect(node.state is not NodeState.PRUNED, "a node that is not pruned", action)
            match action:
                case Expand() | Append() | Score():
                    self._start(node, action)
                case AppendTree():
                    self._start_tree(node, action)
                case Mark():
                    node.score = action.score
                case Close():
                    busy = any(t.action.node == node.id for t in self._tasks)
                    _expect(not busy and node.state is NodeState.IDLE, "an idle node", action)
                    node.state = NodeState.CLOSED
                case Prune():
                    _expect(node.id != self.tree.root, "a node below the root", action)
                    self._prune(node)

    def _start(self, node: LogicalNode, action: Expand | Append | Score) -> None:
        self._expect_open(node, action)
        _expect(not isinstance(action, Expand) or action.k >= 1, "k >= 1", action)
        if isinstance(action, Score):
            single = all(
                isinstance(x, int) or len(self.model.encode(x)) == 1 for x in action.labels
            )
            _expect(single, "labels of one token each", action)
            has_reward = self.model.reward is not None
            _expect(has_reward or not action.reward, "a model with rewards", action)
        extra: tuple[int, ...] = ()
        if isinstance(action, Append):
            extra = self.model.encode(action.tokens)
            _expect(len(extra) > 0, "at least one token", action)
        if not self._fits(node, action, max(len(extra), 1)):
            return
        if isinstance(action, Append):
            node = self._add_given(node, extra, action.tag)
        self._tasks.append(_Task(action=action, node=node.id))

    def _select(self, action: Select) -> None:
        """Move the front on; a node it leaves for good holds no KV any more."""
        _expect(self._selected is None, "no Select under way", action)
        front = self._front or Front(self.tree, action.start)
        front.check(action)
        limit = self.model.max_context
        if action.nodes and limit is not None and len(self._path(action.nodes[0])) >= limit:
            self._failed.append(Failed(node=action.nodes[0], reason="context is full"))
            return
        front.move(action, lambda token: self.model.decode((token,)))
        for step in self.tree:
            if step.state is NodeState.PRUNED:
                self._num_computed.pop(step.id, None)
        self._front = front if action.nodes else None
        self._selected = action if action.nodes else None

    def _start_tree(self, node: LogicalNode, action: AppendTree) -> None:
        """An `Append` of one token for each, all in one step."""
        self._expect_open(node, action)
        _expect(0 < len(action.tokens) == len(action.parent), "a parent for each token", action)
        places = range(len(action.tokens))
        before = all(-1 <= action.parent[place] < place for place in places)
        _expect(before, "parents before their children", action)
        _expect(set(action.ask) <= set(places), "to ask at tokens of the tree", action)
        depth = [0]
        for above in action.parent:
            depth.append(depth[above + 1] + 1)
        if not self._fits(node, action, max(depth)):
            return
        nodes = [node]
        for place, (token, above) in enumerate(zip(action.tokens, action.parent, strict=True)):
            parent = nodes[above + 1]
            nodes.append(self._add_given(parent, (token,), action.tag))
            append = Append(
                node=parent.id, tokens=(token,), top=int(place in action.ask), tag=place
            )
            self._tasks.append(_Task(action=append, node=nodes[-1].id))

    def _expect_open(self, node: LogicalNode, action: Action) -> None:
        is_new_root = node.id == self.tree.root and node.state is NodeState.GROWING
        _expect(is_new_root or node.state is NodeState.IDLE, "a complete, open node", action)

    def _fits(
        self, node: LogicalNode, action: Expand | Append | AppendTree | Score, tokens: int
    ) -> bool:
        """Whether the path to a node has room for more tokens; if not, the controller hears it."""
        limit = self.model.max_context
        if limit is None or len(self._path(node.id)) + tokens <= limit:
            return True
        self._failed.append(Failed(node=node.id, reason="context is full", tag=action.tag))
        return False

    def _add_given(self, node: LogicalNode, tokens: tuple[int, ...], tag: object) -> LogicalNode:
        child = self.tree.add(node.id, seed=node.seed, tag=tag)
        child.token_ids, child.text = list(tokens), self.model.decode(tokens)
        return child

    def _prune(self, node: LogicalNode) -> None:
        gone = {step.id for step in self.tree.subtree(node.id)}
        for step in gone:
            self.tree[step].state = NodeState.PRUNED
            self._growing.pop(step, None)
            self._num_computed.pop(step, None)
        self._tasks = [task for task in self._tasks if task.node not in gone]

    def _end(self, action: Finish) -> None:
        outputs = list(action.outputs)
        _expect(len(set(outputs)) == len(outputs), "distinct outputs", action)
        for output in outputs:
            _expect(output in self.tree, "outputs of the tree", action)
            state = self.tree[output].state
            _expect(state in (NodeState.IDLE, NodeState.CLOSED), "complete outputs", action)
        self.finish = action

    # ── one step ─────────────────────────────────────────────────────────────────────────────────
    def step(self) -> list[Event]:
        """Compute what is under way, a token of every branch; returns the events in node order."""
        tasks, self._tasks = self._tasks, []
        selected, self._selected = self._selected, None
        front = self._front.nodes if selected is not None and self._front is not None else ()
        growing = dict(sorted(self._growing.items()))
        failed, self._failed = self._failed, []
        self._compute([*(task.node for task in tasks), *growing, *front])
        found: list[tuple[int, Event]] = [(e.node, e) for e in failed if isinstance(e, Failed)]
        for node, expand in growing.items():
            found.extend(self._grow(node, expand))
        for task in sorted(tasks, key=lambda task: task.node):
            found.extend(self._answer(task))
        if selected is not None:
            found.append((front[0], self._rank(selected, front)))
        events = [event for _, event in sorted(found, key=lambda item: item[0])]
        self.events.extend(events)
        return events

    def _compute(self, nodes: Sequence[int]) -> None:
        """Bring every path to `nodes` up to date; a node already computed asks its last token."""
        rows = set(nodes)
        for node in nodes:
            for step in self.tree.path(node):
                if self._num_computed.get(step.id, 0) < len(step.token_ids):
                    self._num_computed[step.id] = len(step.token_ids)
                    rows.add(step.id)
                if step.state is NodeState.GROWING and step.id not in self._growing:
                    step.state = NodeState.IDLE
        live = sum(self._num_computed.values())
        self.steps.append(Step(rows=len(rows), live_tokens=live))

    def _answer(self, task: _Task) -> list[tuple[int, Event]]:
        action, node = task.action, task.node
        if isinstance(action, Expand):
            return self._spawn(action)
        path = self._path(node)
        if isinstance(action, Append):
            return [(node, self._appended(action, node, path))]
        path += self.model.encode(action.suffix)
        if action.reward:
            return [(node, self._valued(action, path))]
        logprobs = self.model.next_logprobs(path)
        labels = [x if isinstance(x, int) else self.model.encode(x)[0] for x in action.labels]
        scored = Scored(
            node=node,
            logprobs=tuple(logprobs.get(label, -math.inf) for label in labels),
            top=self.model.top(path, action.top),
            tag=action.tag,
        )
        return [(node, scored)]

    def _valued(self, action: Score, path: tuple[int, ...]) -> Scored:
        assert self.model.reward is not None, "checked when it was asked for"
        value = self.model.reward(path)
        if not action.suffix:
            self.tree[action.node].reward = value
        return Scored(node=action.node, value=value, tag=action.tag)

    def _appended(self, action: Append, node: int, path: tuple[int, ...]) -> Appended:
        logprobs: tuple[TokenLogprob, ...] = ()
        if action.logprobs is not None:
            count = len(self.tree[node].token_ids)
            logprobs = tuple(
                self.model.token_logprob(path[:at], path[at], action.logprobs)
                for at in range(len(path) - count, len(path))
            )
            self.tree[node].logprobs = list(logprobs)
            self.tree[node].cumulative_logprob += sum(t.logprob for t in logprobs)
        top = self.model.top(path, action.top)
        return Appended(node=node, parent=action.node, logprobs=logprobs, top=top, tag=action.tag)

    def _rank(self, action: Select, front: Sequence[int]) -> Ranked:
        """The best continuations of a front."""
        found = [
            (-(logprob + added), branch, token)
            for branch, (node, logprob) in enumerate(zip(front, action.logprobs, strict=True))
            for token, added in self.model.top(self._path(node), action.top)
            if added > -math.inf
        ]
        columns = np.array(sorted(found)[: action.top], dtype=np.float64).reshape(-1, 3).T
        branch, token = columns[1:].astype(np.int64)
        best = Candidates(branch=branch, token=token, logprob=-columns[0])
        return Ranked(nodes=front, best=best)

    def _spawn(self, action: Expand) -> list[tuple[int, Event]]:
        parent = self.tree[action.node]
        children = []
        for _ in range(action.k):
            index = self._num_forks.get(parent.id, 0)
            self._num_forks[parent.id] = index + 1
            child = self.tree.add(parent.id, seed=child_seed(parent.seed, index), tag=action.tag)
            self._growing[child.id] = action
            children.append(child.id)
        spawned = Spawned(parent=parent.id, nodes=tuple(children), tag=action.tag)
        ended = [event for child in children for event in self._grow(child, action)]
        return [(parent.id, spawned), *ended]

    def _grow(self, node: int, expand: Expand) -> list[tuple[int, Event]]:
        """Sample one more token of a branch; returns its end, if this was it."""
        branch, params, path = self.tree[node], expand.params, self._path(node)
        token = self.model.pick(path, params.temperature, branch.seed)
        entry = self.model.token_logprob(path, token, params.logprobs or 0)
        branch.token_ids.append(token)
        branch.text = self.model.decode(branch.token_ids)
        branch.cumulative_logprob += entry.logprob
        if params.logprobs is not None:
            branch.logprobs = [*(branch.logprobs or ()), entry]
        self.tree.generated_tokens += 1
        if not self._is_over(branch, params):
            return []
        del self._growing[node]
        branch.state = NodeState.IDLE
        return [(node, Finished(node=node, tag=expand.tag))]

    def _is_over(self, branch: LogicalNode, params: SamplingParams) -> bool:
        """Apply the stop rules to the token just added."""
        token, count = branch.token_ids[-1], len(branch.token_ids)
        if count >= max(params.min_tokens, 1):
            ends = () if params.ignore_eos else self.model.eos_token_ids
            if token in (*params.stop_token_ids, *ends):
                branch.finish_reason, branch.stop_reason = "stop", token
                return True
            begins = [(branch.text.find(s), -len(s), s) for s in params.stop_strings]
            stops = sorted(found for found in begins if found[0] >= 0)
            if stops:
                begin, _, stop = stops[0]
                end = begin + len(stop) if params.include_stop_str_in_output else begin
                branch.text = branch.text[:end]
                branch.finish_reason, branch.stop_reason = "stop", stop
                return True
        if count >= params.max_tokens:
            branch.finish_reason = "length"
            return True
        return False

    def _path(self, node: int) -> tuple[int, ...]:
        return tuple(token for step in self.tree.path(node) for token in step.token_ids)


def _expect(holds: bool, wanted: str, action: Action) -> None:
    if not holds:
        raise ProtocolViolation(f"expected {wanted}, got {action}")


def run_controller(
    model: ScriptedModel,
    controller: Controller,
    prompt: Tokens,
    *,
    seed: int = 0,
    step_s: float = 0.0,
    max_steps: int = 100_000,
) -> ScriptedRun:
    """Drive a controller from `Started` to `Finish`; `step_s` is the clock's tick per step.

    Raises ProtocolViolation for a forbidden action, for waiting when nothing is under way, and
    for not finishing within `max_steps`.
    """
    run = ScriptedRun(model, prompt, seed)
    events: Sequence[Event] = [Started(root=run.tree.root)]
    while True:
        if events:
            run.perform(controller.advance(run.tree, events))
        if run.finish is not None:
            return run
        if not run.is_busy:
            raise ProtocolViolation("expected an action or a Finish, got neither, nothing is due")
        if len(run.steps) >= max_steps:
            raise ProtocolViolation(f"expected a Finish within {max_steps} steps, got none")
        events = run.step()
        run.tree.elapsed_s += step_s
