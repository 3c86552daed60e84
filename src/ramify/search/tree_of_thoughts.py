"""Tree of Thoughts (Yao et al., NeurIPS 2023): breadth first by levels, then best first.

Each round expands the best open thoughts by one step, drops copies, lets the scorer cut what breaks
the rules and recognise an answer, and lets the judge, the model itself, value the rest. Without
backtracking that is the paper's breadth-first search. With it, thoughts that were not among the
best are kept in reserve, and as long as the budget lasts the search turns to wherever the next
tokens promise most: a thought in reserve, or more samples of one that was expanded before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeAlias

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.best_of_n import mean_logprob
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
    Started,
)
from ramify.search.frontier import Frontier, Thought
from ramify.search.scorer import Judge, Scorer, Value, as_value
from ramify.search.tree import LogicalNode, TreeView

State: TypeAlias = Callable[[str], Hashable]
"""What a text has arrived at; two texts with one state are copies of each other."""

MIN_SHARE = 0.5
"""A round's other expansions must promise at least this share of what its best one does."""


class TreeOfThoughts:
    """Search over steps: `params` describes one step, its stop string ends it.

    Args:
        params: one step; the stop string should stay in the text (`include_stop_str_in_output`).
            A step cut by `max_tokens` before its stop is dropped; an end token ends the answer.
        k: branches of one expansion, for all levels or level by level (the last one repeats).
        width: thoughts expanded side by side, and in breadth-first search kept per level.
        depth: steps of an answer.
        scorer: cuts what is wrong, ends the search when solved; its score ranks without a judge.
        judge: asks the model for the value of every thought that may be expanded.
        budget: limits of the search. With backtracking it is used up unless an answer is found.
        backtrack: keep what does not rank among the best in reserve instead of pruning it.
        state: what a text has arrived at, to know copies by; default the text itself.
        heat: how much hotter each further expansion of one thought is sampled, as a share of the
            temperature, which at most doubles: what is still unseen there is improbable.
    Raises:
        InputError: k, width or depth below 1, heat below 0.

    With a budget and a good judge, few branches at a time (k of 1 or 2, width 1) find an answer
    with the fewest tokens: a thought that is still the most promising is simply sampled again.
    """

    def __init__(
        self,
        params: SamplingParams,
        k: int | Sequence[int],
        width: int,
        depth: int,
        scorer: Scorer | None = None,
        judge: Judge | None = None,
        budget: Budget | None = None,
        *,
        backtrack: bool = True,
        state: State | None = None,
        heat: float = 0.25,
    ) -> None:
        ks = list(k) if isinstance(k, Sequence) else [k]
        for name, values in (("k", ks), ("width", [width]), ("depth", [depth])):
            if not values or any(type(v) is not int or v < 1 for v in values):
                raise InputError(expected_got(name, "an int >= 1", repr(values)))
        if not 0.0 <= heat < math.inf:
            raise InputError(expected_got("heat", "a number >= 0", repr(heat)))
        self.params = params
        self._heat = heat
        self._ks, self._width, self._depth = ks, width, depth
        self._scorer, self._judge, self._budget = scorer, judge, budget or Budget()
        self._backtrack, self._state = backtrack, state
        self._frontier = Frontier(depth)
        self._thoughts: dict[int, Thought] = {}
        self._complete: list[Thought] = []  # answers that the scorer did not confirm
        self._made: list[Thought] = []  # by the round under way
        self._expanding: set[int] = set()  # thoughts whose branches are not there yet
        self._waiting: set[int] = set()  # branches that grow and thoughts being judged
        self._seen: set[Hashable] = set()
        self._longest_step = 0
        self._stats = {"rounds": 0, "expansions": 0, "copies": 0, "illegal": 0, "cut_short": 0}

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Value what has ended; when the round is over, start the next one or finish."""
        actions: list[Action] = []
        for event in events:
            if isinstance(event, Spawned):
                self._expanding.discard(event.parent)
                self._waiting.update(event.nodes)
        for event in events:
            if isinstance(event, Started):
                return self._plant(tree, event.root)
            if isinstance(event, Finished):
                if self._end(tree, event.node, actions).solved:
                    return [*actions, *self._finish(event.node)]
            elif isinstance(event, Scored) and self._judge is not None:
                self._waiting.discard(event.node)
                self._thoughts[event.node].value = self._judge.value(event.logprobs)
                actions.append(Mark(node=event.node, score=self._thoughts[event.node].value))
            elif isinstance(event, Failed):
                # a path too long for the model or the pool: nothing more can grow from there
                self._expanding.discard(event.node)
                self._waiting.discard(event.node)
                self._frontier.discard(event.node)
        if self._waiting or self._expanding:
            return actions
        return [*actions, *self._next_round(tree)]

    def _plant(self, tree: TreeView, root: int) -> list[Action]:
        """Expand the root at once; its own value is asked for only if it may be needed again."""
        thought = Thought(node=root, level=0, value=1.0, logprob=0.0)
        self._thoughts[root] = thought
        self._frontier.add(thought)
        self._made = [thought]
        actions = self._next_round(tree)
        may_return = self._backtrack and self._budget.is_limited and bool(self._expanding)
        if self._judge is not None and may_return:
            actions.extend(self._ask(root, self._judge))
        return actions

    def _ask(self, node: int, judge: Judge) -> list[Action]:
        self._waiting.add(node)
        return [Score(node=node, suffix=judge.suffix, labels=judge.labels)]

    # ── a branch has ended ───────────────────────────────────────────────────────────────────────
    def _end(self, tree: TreeView, node: int, actions: list[Action]) -> Value:
        """Drop a branch or make it a thought; returns the scorer's verdict."""
        self._waiting.discard(node)
        parent = self._thoughts[tree.path(node)[-2].id]
        parent.num_samples += 1
        value, fate = self._look_at(tree, node)
        if fate is not None:
            self._stats[fate] += 1
            actions.append(Prune(node=node))
            return value
        parent.num_useful += 1
        thought = Thought(
            node=node,
            level=parent.level + 1,
            value=value.score,
            logprob=mean_logprob(tree, node),
        )
        if self._scorer is None:
            thought.value = math.exp(thought.logprob)
        self._keep(thought, is_answer=self._has_ended(tree[node]))
        actions.append(Mark(node=node, score=thought.value))
        is_judged = thought.level < self._depth or self._scorer is None
        if self._judge is not None and is_judged and not value.solved:
            actions.extend(self._ask(node, self._judge))
        return value

    def _look_at(self, tree: TreeView, node: int) -> tuple[Value, str | None]:
        """The verdict on a branch, and under which count it is dropped; None to keep it."""
        branch, nothing = tree[node], Value(score=0.0)
        has_stop = self.params.stop_strings or self.params.stop_token_ids
        if has_stop and branch.finish_reason == "length":
            return nothing, "cut_short"
        longest = max(self._longest_step, len(branch.token_ids))
        self._longest_step = longest
        text = tree.completion_text(node)
        state = text if self._state is None else self._state(text)
        if state in self._seen:
            return nothing, "copies"
        self._seen.add(state)
        if self._scorer is None:
            return nothing, None
        value = as_value(self._scorer(tree[tree.root].text, text))
        return value, "illegal" if value.prune and not value.solved else None

    def _has_ended(self, branch: LogicalNode) -> bool:
        """Whether an end token closed the branch, rather than the stop of a step."""
        steps = (*self.params.stop_strings, *self.params.stop_token_ids)
        return branch.finish_reason == "stop" and branch.stop_reason not in steps

    def _keep(self, thought: Thought, *, is_answer: bool) -> None:
        self._thoughts[thought.node] = thought
        if is_answer or thought.level == self._depth:
            self._complete.append(thought)
        else:
            self._frontier.add(thought)
            self._made.append(thought)

    # ── a round is over ──────────────────────────────────────────────────────────────────────────
    def _next_round(self, tree: TreeView) -> list[Action]:
        """Expand the best thoughts as far as the budget goes, or finish."""
        chosen, actions = self._choose()
        self._made = []
        allowance = Allowance(self._budget, tree)
        for thought in chosen:
            k = self._ks[min(thought.level, len(self._ks) - 1)]
            expected_tokens = self._longest_step or self.params.max_tokens
            k, params = allowance.take(k, self._step_params(thought), expected_tokens)
            if k == 0:
                break
            thought.num_expansions += 1
            self._expanding.add(thought.node)
            actions.append(Expand(node=thought.node, k=k, params=params))
        if not self._expanding:
            return [*actions, *self._finish()]
        self._stats["rounds"] += 1
        self._stats["expansions"] += len(self._expanding)
        return actions

    def _step_params(self, thought: Thought) -> SamplingParams:
        """One step from a thought, the hotter the more often it was expanded before."""
        heat = min(self._heat * thought.num_expansions, 1.0)
        return replace(self.params, temperature=self.params.temperature * (1.0 + heat))

    def _choose(self) -> tuple[list[Thought], list[Action]]:
        """The thoughts to expand next, best first, and the pruning of those given up."""
        if not self._backtrack:
            kept = self._frontier.best(self._width, self._made)
            given_up = [t.node for t in self._made if t not in kept]
            for node in given_up:
                del self._thoughts[node]
            return kept, [Prune(node=node) for node in given_up]
        open_thoughts = list(self._frontier)
        if not self._budget.is_limited:
            # without a limit each thought is expanded once, and an unchecked answer is the end
            open_thoughts = [t for t in open_thoughts if t.num_expansions == 0]
            if self._scorer is None and self._complete:
                return [], []
        best = self._frontier.best(self._width, open_thoughts)
        floor = MIN_SHARE * best[0].priority(self._depth) if best else 0.0
        return [t for t in best if t.priority(self._depth) >= floor], []

    def _finish(self, solved: int | None = None) -> list[Action]:
        """The answer if there is one; else what comes closest, best first."""
        if solved is not None:
            return [Finish(outputs=(solved,), solved=True, stats=self._stats)]
        thoughts = [t for t in self._thoughts.values() if t.level > 0]
        deepest = max((t.level for t in thoughts), default=0)
        closest = self._complete or [t for t in thoughts if t.level == deepest]
        ranked = sorted(closest, key=lambda t: (-t.value, -t.logprob, t.node))[: self._width]
        return [Finish(outputs=tuple(t.node for t in ranked), stats=self._stats)]
