"""Monte Carlo tree search by UCT (Kocsis, Szepesvári, ECML 2006), with steps of text as moves.

As in LATS (Zhou et al., ICML 2024), a leaf is expanded by several sampled steps at once and each
of them is valued. The value is a scorer's or a judge's, or what a rollout to the end is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ramify.core.errors import InputError, expected_got
from ramify.search.step_search import StepSearch, check_number, check_sizes
from ramify.search.thought import Expansion, Thought
from ramify.search.tree import TreeView

ROLLOUT = "rollout"


@dataclass(kw_only=True, eq=False)
class Visits:
    """What is known of a step: how often a simulation passed it, and what they were worth."""

    thought: Thought
    above: Visits | None
    below: list[Visits] = field(default_factory=list)
    count: int = 0
    total: float = 0.0
    num_expansions: int = 0
    is_busy: bool = False  # its expansion or its rollout is under way

    def uct(self, exploration: float) -> float:
        """Mean value, raised where few simulations came by; first visits go first."""
        if self.count == 0 or self.above is None:
            return math.inf
        bonus = math.sqrt(math.log(max(self.above.count, 1)) / self.count)
        return self.total / self.count + exploration * bonus


@dataclass(kw_only=True, eq=False)
class MonteCarloTreeSearch(StepSearch):
    """Select a leaf by UCT, expand it by k, value what is new, and tell everything above.

    Each new step counts as a visit, an expansion without one as a visit of value 0. An answer that
    is not confirmed is counted once and never selected again. A leaf is a step with nothing below
    it that may be selected, or one that came by so often that it deserves more samples
    (progressive widening, Couëtoux et al., LION 2011), or whose steps below all promise less than
    new samples do (first-play urgency, Gelly, Wang, 2006): k samples are not all its moves.

    Attributes:
        exploration: weight of the bonus for rare visits, often called c.
        widening: a step of n visits may be expanded floor(n ** widening) times; 0 for plain UCT.
        urgency: what new samples of a step promise, as a share of the step's own value, which
            shrinks as its samples repeat; 0: they are taken by widening alone.
        simulations: expansions in all; default as many as the budget allows.
        parallel: leaves expanded side by side. Until a leaf is valued, each counts on its way as a
            visit of value 0 (virtual loss), so that the next ones go elsewhere; none waits.
        rollout_tokens: with it, one completion of at most so many tokens is sampled from every new
            step, to the end of the text, and its score is the value. The best rollout is an
            output as other answers are; the others are cut.
    Raises:
        InputError: a size is wrong, or there is neither a budget nor a number of simulations.
    """

    k: int = 4
    exploration: float = 1.0
    widening: float = 0.5
    urgency: float = 0.0
    simulations: int | None = None
    parallel: int = 1
    rollout_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(k=self.k, parallel=self.parallel)
        for name in ("simulations", "rollout_tokens"):
            if getattr(self, name) is not None:
                check_sizes(**{name: getattr(self, name)})
        check_number("exploration", self.exploration, at_least=0.0)
        check_number("widening", self.widening, at_least=0.0)
        check_number("urgency", self.urgency, at_least=0.0)
        if self.simulations is None and not self.repeats:
            raise InputError(expected_got("simulations", "a number where budget is open", None))
        self._visits: dict[Thought, Visits] = {}
        self._num_simulations = 0
        self._best_rollout: Thought | None = None

    def _begin(self, tree: TreeView) -> None:
        self._visits.setdefault(self.root, Visits(thought=self.root, above=None))
        self._simulate(tree)

    def _simulate(self, tree: TreeView) -> None:
        """Start expansions until enough are under way, or nothing may be started."""
        busy = sum(visits.is_busy for visits in self._visits.values())
        while busy < self.parallel and self._num_simulations != self.simulations:
            leaf = self._select()
            if leaf is None or not self.growth.expand(tree, leaf.thought, self.k):
                return
            leaf.is_busy = True
            leaf.num_expansions += 1
            self._count(leaf, 1, 0.0)
            self._num_simulations += 1
            busy += 1

    def _select(self) -> Visits | None:
        """The leaf that UCT leads to; None while all that it could be are under way."""
        at = self._visits[self.root]
        while not at.is_busy:
            options = [v for v in at.below if not (v.thought.is_answer or v.thought.is_stuck)]
            may_widen = at.num_expansions < math.floor(at.count**self.widening)
            if not options or may_widen:
                return at
            free = [visits for visits in options if not visits.is_busy]
            if not free:
                return None
            # of equal ones max takes the first, which is the earlier
            best = max(free, key=lambda visits: visits.uct(self.exploration))
            if best.uct(self.exploration) < self.urgency * at.thought.worth_of_samples:
                return at
            at = best
        return None

    def _go_on(self, tree: TreeView, expansion: Expansion) -> None:
        if expansion.group is not None:
            self._end_rollout(tree, expansion)
        else:
            self._end_expansion(tree, expansion)
        self._simulate(tree)

    def _end_expansion(self, tree: TreeView, expansion: Expansion) -> None:
        """Value the new steps, or roll out from each."""
        leaf = self._visits[expansion.source]
        leaf.is_busy = False
        self._count(leaf, -1, 0.0)  # take the virtual loss back
        for thought in expansion.made:
            visits = self._visits[thought] = Visits(thought=thought, above=leaf)
            leaf.below.append(visits)
            if not self._roll_out(tree, visits):
                self._count(visits, 1, thought.value)
        if not expansion.made:
            self._count(leaf, 1, 0.0)

    def _roll_out(self, tree: TreeView, visits: Visits) -> bool:
        """Start a rollout where they are asked for; returns whether one is under way."""
        if self.rollout_tokens is None or visits.thought.is_answer:
            return False
        params = replace(
            self.params, max_tokens=self.rollout_tokens, stop=None, stop_token_ids=(), min_tokens=0
        )
        group = (ROLLOUT, visits.thought.node)
        visits.is_busy = self.growth.expand(tree, visits.thought, 1, params=params, group=group) > 0
        if visits.is_busy:
            self._count(visits, 1, 0.0)
        return visits.is_busy

    def _end_rollout(self, tree: TreeView, expansion: Expansion) -> None:
        """Put the rollout's worth in the place of its virtual loss; keep the best one."""
        visits = self._visits[expansion.source]
        visits.is_busy = False
        for rollout in expansion.made:
            self._count(visits, 0, rollout.value)
            known = [rollout] if self._best_rollout is None else [self._best_rollout, rollout]
            self._best_rollout, *worse = sorted(known, key=lambda thought: thought.rank)
            for thought in worse:
                self.growth.prune(tree, thought)

    def _count(self, visits: Visits, count: int, value: float) -> None:
        """Add to a step and to everything above it."""
        at: Visits | None = visits
        while at is not None:
            at.count += count
            at.total += value
            at = at.above
