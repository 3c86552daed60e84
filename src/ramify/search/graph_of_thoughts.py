"""Graph of Thoughts (Besta et al., AAAI 2024), as a plan that splits, solves, and merges.

Every part of a problem is a prompt of its own. A part is solved k times, the results are scored and
the best is kept; two results that stand next to each other make the prompt that merges them, which
is solved the same way. The graph lives in one tree: each prompt is a child of the root, so what all
of them begin with is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.budget import Allowance, Budget
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Mark,
    Prune,
    Spawned,
    Started,
)
from ramify.search.scorer import AnyScorer, Value, values_of
from ramify.search.step_search import check_sizes
from ramify.search.tree import TreeView

Span: TypeAlias = tuple[int, int]
"""Parts [begin, end) of a plan."""


class Plan(Protocol):
    """How a problem is taken apart and put together again, in prompts."""

    @property
    def parts(self) -> Sequence[str]:
        """Prompts of the parts, in order; at least one, each of at least one token."""
        ...

    def merge(self, left: str, right: str) -> str:
        """The prompt that asks for two results as one."""
        ...


@dataclass(kw_only=True, eq=False)
class Operation:
    """A prompt to be solved for the parts [begin, end), and the best that came of it."""

    span: Span
    prompt_node: int | None = None
    num_attempts: int = 0
    num_due: int = 0  # branches asked for and not there yet
    num_tokens: int = 0  # the most a branch may take
    growing: set[int] = field(default_factory=set)
    best: int | None = None
    value: Value = field(default_factory=lambda: Value(score=-math.inf))


@dataclass(kw_only=True, eq=False)
class GraphOfThoughts:
    """Solve the parts side by side; merge a pair as soon as both are there.

    Outputs are what no merge has used, widest first: the whole if all went well. Their text begins
    with the prompt they answer.

    Attributes:
        params: one solution of one prompt.
        plan: parts and merges. Neighbours are paired level by level, an odd last one moves up.
        scorer: sees a part's prompt and a solution of it; default the solution's probability.
            `solved` ends attempts at a part, and the search when it is said of the whole.
        k: solutions of every prompt in one attempt.
        attempts: with a scorer, how often k solutions are tried while none of them is solved.
        budget: limits of the search, never exceeded; nodes include those of prompts.
    Raises:
        InputError: a size below 1, or a plan without parts.
    """

    params: SamplingParams
    plan: Plan
    scorer: AnyScorer | None = None
    k: int = 4
    attempts: int = 1
    budget: Budget | None = None

    def __post_init__(self) -> None:
        check_sizes(k=self.k, attempts=self.attempts)
        if not self.plan.parts:
            raise InputError(expected_got("plan.parts", "at least one", "none"))
        self._limits = self.budget or Budget()
        self._pairs = pairs_of(len(self.plan.parts))
        self._under_way: list[Operation] = []
        self._results: dict[Span, Operation] = {}  # not merged yet
        self._num_operations = 0
        self._longest = 0
        self._actions: list[Action] = []

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Take in what came, merge what can be merged, and finish when nothing is under way."""
        for event in events:
            if isinstance(event, Started):
                for i, prompt in enumerate(self.plan.parts):
                    self._ask(tree, (i, i + 1), prompt)
                continue
            operation = getattr(event, "tag", None)
            if not isinstance(operation, Operation):
                continue
            if isinstance(event, Appended):
                operation.prompt_node = event.node
                self._solve(tree, operation)
            elif isinstance(event, Spawned):
                operation.num_due = 0
                operation.growing.update(event.nodes)
            elif isinstance(event, Failed):
                self._end(tree, operation)
        self._take(tree, [event for event in events if isinstance(event, Finished)])
        actions, self._actions = self._actions, []
        return actions if self._under_way else [*actions, self._finish()]

    # ── asking ───────────────────────────────────────────────────────────────────────────────────
    def _ask(self, tree: TreeView, span: Span, prompt: str) -> None:
        """Put a prompt under the root, if the budget has a node for it."""
        if not self._allowance(tree).take(1, self.params, 1)[0]:
            return
        operation = Operation(span=span)
        self._under_way.append(operation)
        self._num_operations += 1
        self._actions.append(Append(node=tree.root, tokens=prompt, tag=operation))

    def _solve(self, tree: TreeView, operation: Operation) -> None:
        """Try a prompt k times, or as often as the budget allows."""
        assert operation.prompt_node is not None, "the prompt is computed"
        expected_tokens = self._longest or self.params.max_tokens
        k, params = self._allowance(tree).take(self.k, self.params, expected_tokens)
        if k == 0:
            self._end(tree, operation)
            return
        operation.num_attempts += 1
        operation.num_due, operation.num_tokens = k, params.max_tokens
        self._actions.append(Expand(node=operation.prompt_node, k=k, params=params, tag=operation))

    def _allowance(self, tree: TreeView) -> Allowance:
        """What the budget leaves beside everything under way."""
        tokens_due = sum(
            o.num_due * o.num_tokens + sum(o.num_tokens - len(tree[n].token_ids) for n in o.growing)
            for o in self._under_way
        )
        # an append is in the tree once it is carried out
        nodes_due = sum(o.num_due for o in self._under_way)
        nodes_due += sum(isinstance(action, Append) for action in self._actions)
        return Allowance(self._limits, tree, tokens_due=tokens_due, nodes_due=nodes_due)

    # ── learning ─────────────────────────────────────────────────────────────────────────────────
    def _take(self, tree: TreeView, events: Sequence[Finished]) -> None:
        """Score what ended, keep the best of each operation, go on where an attempt is over."""
        ended: dict[Operation, list[int]] = {}
        for event in events:
            assert isinstance(event.tag, Operation), "every branch solves a prompt"
            ended.setdefault(event.tag, []).append(event.node)
        for operation, nodes in ended.items():
            operation.growing.difference_update(nodes)
            self._longest = max(self._longest, *(len(tree[node].token_ids) for node in nodes))
            for node, value in zip(nodes, self._values(tree, operation, nodes), strict=True):
                self._keep_best(operation, node, value)
            if operation.growing or operation.num_due:
                continue
            may_retry = self.scorer is not None and operation.num_attempts < self.attempts
            if may_retry and not operation.value.solved:
                self._solve(tree, operation)
            else:
                self._end(tree, operation)

    def _values(self, tree: TreeView, operation: Operation, nodes: Sequence[int]) -> list[Value]:
        if self.scorer is not None:
            return values_of(self.scorer, tree, nodes, prompt_node=operation.prompt_node)
        steps = [tree[node] for node in nodes]
        return [
            Value(score=math.exp(step.cumulative_logprob / len(step.token_ids))) for step in steps
        ]

    def _keep_best(self, operation: Operation, node: int, value: Value) -> None:
        """Of equal ones the earlier stays; what breaks the rules never does."""
        self._actions.append(Mark(node=node, score=value.score))
        old, new = operation.value, value
        is_better = (new.solved, new.score) > (old.solved, old.score)
        loser: int | None = node
        if is_better and (new.solved or not new.prune):
            loser, operation.best, operation.value = operation.best, node, value
        if loser is not None:
            self._actions.append(Prune(node=loser))

    def _end(self, tree: TreeView, operation: Operation) -> None:
        """An operation is over: its result may complete a pair, and replaces what it merged."""
        self._under_way.remove(operation)
        if operation.best is None:
            return
        for part in [s for s in self._results if _is_within(s, operation.span)]:
            prompt_node = self._results.pop(part).prompt_node
            assert prompt_node is not None, "a result answers a prompt"
            self._actions.append(Prune(node=prompt_node))
        self._results[operation.span] = operation
        pair = self._pairs.get(operation.span)
        if pair is not None and all(part in self._results for part in pair):
            left, right = (self._answer(tree, self._results[part]) for part in pair)
            self._ask(tree, (pair[0][0], pair[1][1]), self.plan.merge(left, right))

    def _answer(self, tree: TreeView, operation: Operation) -> str:
        assert operation.best is not None, "a result has a best solution"
        return tree[operation.best].text

    def _finish(self) -> Finish:
        ranked = sorted(self._results.values(), key=lambda o: (o.span[0] - o.span[1], o.span))
        outputs = tuple(o.best for o in ranked if o.best is not None)
        whole = self._results.get((0, len(self.plan.parts)))
        stats = {"operations": self._num_operations}
        return Finish(outputs=outputs, solved=whole is not None and whole.value.solved, stats=stats)


def pairs_of(num_parts: int) -> dict[Span, tuple[Span, Span]]:
    """For each span of parts that is merged, the pair it is merged in."""
    pairs: dict[Span, tuple[Span, Span]] = {}
    level = [(i, i + 1) for i in range(num_parts)]
    while len(level) > 1:
        above = [(a[0], b[1]) for a, b in zip(level[::2], level[1::2], strict=False)]
        for left, right in zip(level[::2], level[1::2], strict=False):
            pairs[left] = pairs[right] = (left, right)
        level = above + level[len(above) * 2 :]
    return pairs


def _is_within(part: Span, whole: Span) -> bool:
    return part != whole and whole[0] <= part[0] and part[1] <= whole[1]
