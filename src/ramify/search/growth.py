"""Thoughts and how they grow: branches of one step each, within a budget, valued when they end.

What searches over steps have in common. They ask for expansions and learn which are over; a branch
that was cut short, copies another or breaks the rules is dropped on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ramify.core.params import SamplingParams
from ramify.search.budget import Allowance, Budget
from ramify.search.controller import (
    Action,
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
from ramify.search.scorer import AnyScorer, Judge, Value, mean_logprob, values_of
from ramify.search.thought import Expansion, Thought
from ramify.search.tree import TreeView

State: TypeAlias = Callable[[str], Hashable]
"""What a text has arrived at; two texts with one state are copies of each other."""


@dataclass(kw_only=True, eq=False)
class Growth:
    """The thoughts of one tree, and the branches that will become some.

    Attributes:
        params: one step; without its stop, a step is dropped unless `max_tokens` alone ends steps.
        depth: steps of an answer.
        enough: an answer of this value is as good as solved.
        keep_copies: whether a state may be arrived at more than once in a group.
        solved: the first thought that the scorer calls solved, or whose value is enough.
    """

    params: SamplingParams
    depth: int
    scorer: AnyScorer | None = None
    judge: Judge | None = None
    budget: Budget = field(default_factory=Budget)
    state: State | None = None
    enough: float | None = None
    keep_copies: bool = False
    thoughts: dict[int, Thought] = field(default_factory=dict)
    solved: Thought | None = None
    stats: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stats = {"expansions": 0, "copies": 0, "illegal": 0, "cut_short": 0}
        self.longest_step = 0
        self._under_way: list[Expansion] = []
        self._judging: dict[int, Expansion | None] = {}
        self._seen: set[Hashable] = set()
        self._actions: list[Action] = []

    @property
    def is_busy(self) -> bool:
        """Whether anything asked for is still to come."""
        return bool(self._under_way or self._judging)

    # ── asking ───────────────────────────────────────────────────────────────────────────────────
    def plant(self, root: int) -> Thought:
        """Make the root a thought."""
        self.thoughts[root] = Thought(node=root, level=0, value=1.0, logprob=0.0)
        return self.thoughts[root]

    def expand(
        self,
        tree: TreeView,
        source: Thought,
        k: int,
        *,
        params: SamplingParams | None = None,
        group: Hashable = None,
    ) -> int:
        """Start k branches of a step, or as many as the budget still allows; returns how many."""
        if source.is_answer or source.is_stuck:
            return 0
        wanted = params or self.params
        tokens_due = sum(e.tokens_due(tree) for e in self._under_way)
        nodes_due = sum(e.num_due for e in self._under_way)
        allowance = Allowance(self.budget, tree, tokens_due=tokens_due, nodes_due=nodes_due)
        k, granted = allowance.take(k, wanted, self.longest_step or wanted.max_tokens)
        if k == 0:
            return 0
        expansion = Expansion(source=source, group=group, num_tokens=granted.max_tokens, num_due=k)
        self._under_way.append(expansion)
        self._actions.append(Expand(node=source.node, k=k, params=granted, tag=expansion))
        source.num_expansions += 1
        self.stats["expansions"] += 1
        return k

    def ask(self, thought: Thought, expansion: Expansion | None = None) -> None:
        """Have the judge value a thought."""
        assert self.judge is not None, "there is a judge to ask"
        self._judging[thought.node] = expansion
        labels = self.judge.labels
        self._actions.append(Score(node=thought.node, suffix=self.judge.suffix, labels=labels))

    def prune(self, tree: TreeView, thought: Thought) -> None:
        """Cut a thought and what hangs below it, where nothing is under way."""
        gone = [thought.node]
        for node in gone:
            gone.extend(tree[node].children)
            self.thoughts.pop(node, None)
        self._actions.append(Prune(node=thought.node))

    def take_actions(self) -> list[Action]:
        """Everything asked for since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def finish(self, count: int, **stats: int) -> Finish:
        """The answer if there is one; else the best `count` of what comes closest."""
        stats = {**self.stats, **stats}
        if self.solved is not None:
            return Finish(outputs=(self.solved.node,), solved=True, stats=stats)
        thoughts = [t for t in self.thoughts.values() if t.level > 0]
        deepest = max((t.level for t in thoughts), default=0)
        answers = [t for t in thoughts if t.is_answer]
        closest = answers or [t for t in thoughts if t.level == deepest]
        ranked = sorted(closest, key=lambda t: t.rank)[:count]
        return Finish(outputs=tuple(t.node for t in ranked), stats=stats)

    # ── learning ─────────────────────────────────────────────────────────────────────────────────
    def receive(self, tree: TreeView, events: Sequence[Event]) -> list[Expansion]:
        """Take events in; returns the expansions that are over now, in the order they began."""
        for event in events:
            if isinstance(event, Spawned) and isinstance(event.tag, Expansion):
                event.tag.num_due = 0
                event.tag.growing.update(event.nodes)
        self._end(tree, [e for e in events if isinstance(e, Finished)])
        for event in events:
            if isinstance(event, Scored) and self.judge is not None:
                self._hear(event.node, self.judge.value(event.logprobs))
            elif isinstance(event, Failed):
                self._fail(event)
        over = [e for e in self._under_way if e.is_over]
        self._under_way = [e for e in self._under_way if not e.is_over]
        for expansion in over:
            expansion.made.sort(key=lambda thought: thought.node)
        return over

    def _fail(self, event: Failed) -> None:
        """A path too long for the model: nothing grows from there, or no question fits."""
        if isinstance(event.tag, Expansion):
            event.tag.num_due = 0
            event.tag.source.is_stuck = True
        else:
            self._hear(event.node, None)

    def _hear(self, node: int, value: float | None) -> None:
        """The judge's answer; None leaves the value as it was."""
        thought, expansion = self.thoughts[node], self._judging.pop(node)
        if expansion is not None:
            expansion.judged.discard(node)
        if value is not None:
            thought.value = value
            self._actions.append(Mark(node=node, score=value))
            self._settle(thought, is_solved=False)

    def _end(self, tree: TreeView, events: Sequence[Finished]) -> None:
        """Drop branches or make them thoughts; the scorer sees all that ended together."""
        kept: list[tuple[int, Expansion]] = []
        for event in events:
            assert isinstance(event.tag, Expansion), "every branch grows by an expansion"
            event.tag.growing.discard(event.node)
            event.tag.source.num_samples += 1
            fate = self._fate(tree, event.node, event.tag.group)
            if fate is None:
                kept.append((event.node, event.tag))
            else:
                self._drop(event.node, fate)
        values = self._values(tree, [node for node, _ in kept])
        for (node, expansion), value in zip(kept, values, strict=True):
            if value.prune and not value.solved:
                self._drop(node, "illegal")
            else:
                self._keep(tree, node, expansion, value)

    def _drop(self, node: int, fate: str) -> None:
        self.stats[fate] += 1
        self._actions.append(Prune(node=node))

    def _fate(self, tree: TreeView, node: int, group: Hashable) -> str | None:
        """Under which count a branch is dropped unseen by the scorer; None to keep it."""
        branch = tree[node]
        has_stop = self.params.stop_strings or self.params.stop_token_ids
        if has_stop and branch.finish_reason == "length":
            return "cut_short"
        self.longest_step = max(self.longest_step, len(branch.token_ids))
        if self.keep_copies:
            return None
        text = tree.completion_text(node)
        # a model without a tokenizer makes no text
        own = (text or tuple(tree.completion_ids(node))) if self.state is None else self.state(text)
        state = (group, own)
        if state in self._seen:
            return "copies"
        self._seen.add(state)
        return None

    def _values(self, tree: TreeView, nodes: Sequence[int]) -> list[Value]:
        if self.scorer is not None:
            return values_of(self.scorer, tree, nodes)
        return [Value(score=math.exp(mean_logprob(tree, node))) for node in nodes]

    def _keep(self, tree: TreeView, node: int, expansion: Expansion, value: Value) -> None:
        """Make a branch a thought, and have it judged where a judge has the say."""
        expansion.source.num_useful += 1
        level = expansion.source.level + 1
        thought = Thought(
            node=node,
            level=level,
            value=value.score,
            logprob=mean_logprob(tree, node),
            is_answer=level == self.depth or self._has_ended(tree, node),
        )
        self.thoughts[node] = thought
        expansion.made.append(thought)
        self._actions.append(Mark(node=node, score=thought.value))
        is_judged = not thought.is_answer or self.scorer is None
        if self.judge is not None and is_judged and not value.solved:
            expansion.judged.add(node)
            self.ask(thought, expansion)
        else:
            self._settle(thought, is_solved=value.solved)

    def _settle(self, thought: Thought, *, is_solved: bool) -> None:
        """Notice an answer that ends the search."""
        is_enough = self.enough is not None and thought.value >= self.enough
        if self.solved is None and (is_solved or (thought.is_answer and is_enough)):
            self.solved = thought

    def _has_ended(self, tree: TreeView, node: int) -> bool:
        """Whether an end token closed the branch, rather than the stop of a step."""
        branch, params = tree[node], self.params
        steps = (*params.stop_strings, *params.stop_token_ids)
        return branch.finish_reason == "stop" and branch.stop_reason not in steps
