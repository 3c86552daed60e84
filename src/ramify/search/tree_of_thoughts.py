"""Tree of Thoughts (Yao et al., NeurIPS 2023): breadth first by levels, then best first.

Each round expands the best open thoughts by one step, drops copies, lets the scorer cut what breaks
the rules and recognise an answer, and lets the judge, the model itself, value the rest. Without
backtracking that is the paper's breadth-first search. With it, thoughts that were not among the
best are kept in reserve, and as long as the budget lasts the search turns to wherever the next
tokens promise most: a thought in reserve, or more samples of one that was expanded before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ramify.core.params import SamplingParams
from ramify.search.budget import Budget
from ramify.search.controller import Action, Event, Started
from ramify.search.frontier import Frontier
from ramify.search.growth import Growth, State
from ramify.search.scorer import AnyScorer, Judge
from ramify.search.step_search import check_number, check_sizes
from ramify.search.thought import Thought
from ramify.search.tree import TreeView

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
        enough: an answer whose value is at least this ends the search as solved.
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
        scorer: AnyScorer | None = None,
        judge: Judge | None = None,
        budget: Budget | None = None,
        *,
        backtrack: bool = True,
        state: State | None = None,
        heat: float = 0.25,
        enough: float | None = None,
    ) -> None:
        self._ks = list(k) if isinstance(k, Sequence) else [k]
        for size in self._ks or [0]:
            check_sizes(k=size)
        check_sizes(width=width, depth=depth)
        check_number("heat", heat, at_least=0.0)
        self.params = params
        self._heat, self._width, self._depth = heat, width, depth
        self._backtrack = backtrack
        self._frontier = Frontier(depth)
        self._made: list[Thought] = []  # by the round under way
        self._num_rounds = 0
        self._growth = Growth(
            params=params,
            depth=depth,
            scorer=scorer,
            judge=judge,
            budget=budget or Budget(),
            state=state,
            enough=enough,
        )

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Take in what has ended; when the round is over, start the next one or finish."""
        growth = self._growth
        for expansion in growth.receive(tree, events):
            if expansion.source.is_stuck:
                self._frontier.discard(expansion.source.node)
            for thought in expansion.made:
                self._keep(thought)
        if any(isinstance(event, Started) for event in events):
            self._plant(tree)
        elif growth.solved is None and not growth.is_busy:
            self._next_round(tree)
        actions = growth.take_actions()
        if growth.solved is not None or not growth.is_busy:
            actions.append(growth.finish(self._width, rounds=self._num_rounds))
        return actions

    def _plant(self, tree: TreeView) -> None:
        """Expand the root at once; its own value is asked for only if it may be needed again."""
        thought = self._growth.plant(tree.root)
        self._frontier.add(thought)
        self._made = [thought]
        self._next_round(tree)
        may_return = self._backtrack and self._growth.budget.is_limited and self._growth.is_busy
        if self._growth.judge is not None and may_return:
            self._growth.ask(thought)

    def _keep(self, thought: Thought) -> None:
        if not thought.is_answer:
            self._frontier.add(thought)
            self._made.append(thought)

    # ── a round is over ──────────────────────────────────────────────────────────────────────────
    def _next_round(self, tree: TreeView) -> None:
        """Expand the best thoughts as far as the budget goes."""
        chosen = self._choose(tree)
        self._made = []
        for thought in chosen:
            k = self._ks[min(thought.level, len(self._ks) - 1)]
            if not self._growth.expand(tree, thought, k, params=self._step_params(thought)):
                break
        self._num_rounds += self._growth.is_busy

    def _step_params(self, thought: Thought) -> SamplingParams:
        """One step from a thought, the hotter the more often it was expanded before."""
        heat = min(self._heat * thought.num_expansions, 1.0)
        return replace(self.params, temperature=self.params.temperature * (1.0 + heat))

    def _choose(self, tree: TreeView) -> list[Thought]:
        """The thoughts to expand next, best first; without backtracking the others are cut."""
        if not self._backtrack:
            kept = self._frontier.best(self._width, self._made)
            for thought in self._made:
                if thought not in kept:
                    self._growth.prune(tree, thought)
            return kept
        open_thoughts = list(self._frontier)
        if not self._growth.budget.is_limited:
            # without a limit each thought is expanded once, and an unchecked answer is the end
            open_thoughts = [t for t in open_thoughts if t.num_expansions == 0]
            has_answer = any(t.is_answer for t in self._growth.thoughts.values())
            if self._growth.scorer is None and has_answer:
                return []
        best = self._frontier.best(self._width, open_thoughts)
        floor = MIN_SHARE * best[0].priority(self._depth) if best else 0.0
        return [t for t in best if t.priority(self._depth) >= floor]
