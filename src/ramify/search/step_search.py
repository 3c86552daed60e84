"""The frame of a search over steps: an algorithm says what to expand when an expansion is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.budget import Budget
from ramify.search.controller import Action, Event, Started
from ramify.search.growth import Growth, State
from ramify.search.scorer import AnyScorer, Judge
from ramify.search.thought import Expansion, Thought
from ramify.search.tree import TreeView


@dataclass(kw_only=True, eq=False)
class StepSearch:
    """What every search over steps is told.

    Attributes:
        params: one step; its stop string ends it and should stay in the text
            (`include_stop_str_in_output`). A step that `max_tokens` cuts before its stop is
            dropped; an end token ends the answer.
        depth: steps of an answer.
        scorer: cuts what is wrong and ends the search when solved; its score is a step's value
            where no judge is asked. Without either, a step is worth its path's probability.
        judge: asks the model for the value of every step that may be expanded.
        budget: limits of the search, never exceeded. With one, rounds from the root are repeated
            until it is used up or an answer is found; without one there is a single round.
        state: what a text has arrived at, to drop copies by; default the text itself.
        enough: an answer whose value is at least this ends the search as solved.
        num_outputs: answers returned when none is solved; where there are none, deepest steps.
    Raises:
        InputError: a size is not an int of at least 1.

    The tree is a function of the seed and of the order in which branches end. An engine with one
    policy and one search at a time repeats that order; decisions at a barrier do not depend on it.
    """

    keeps_copies: ClassVar[bool] = False

    params: SamplingParams
    depth: int
    scorer: AnyScorer | None = None
    judge: Judge | None = None
    budget: Budget | None = None
    state: State | None = None
    enough: float | None = None
    num_outputs: int = 1
    root: Thought = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_sizes(depth=self.depth, num_outputs=self.num_outputs)
        self.growth = Growth(
            params=self.params,
            depth=self.depth,
            scorer=self.scorer,
            judge=self.judge,
            budget=self.budget or Budget(),
            state=self.state,
            enough=self.enough,
            keep_copies=self.keeps_copies,
        )
        self.num_rounds = 0
        self._tokens_before_round = -1

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Hand over what is over; with nothing under way, begin a round or finish."""
        growth = self.growth
        over = growth.receive(tree, events)
        if any(isinstance(event, Started) for event in events):
            self.root = growth.plant(tree.root)
        if growth.solved is None:
            for expansion in over:
                self._go_on(tree, expansion)
            if not growth.is_busy:
                self._idle(tree)
        actions: list[Action] = growth.take_actions()
        if growth.solved is not None or not growth.is_busy:
            actions.append(growth.finish(self.num_outputs, rounds=self.num_rounds))
        return actions

    @property
    def repeats(self) -> bool:
        """Whether there is a limit up to which rounds are repeated."""
        return self.growth.budget.is_limited

    def _begin(self, tree: TreeView) -> None:
        """Begin a round at the root."""
        raise NotImplementedError

    def _go_on(self, tree: TreeView, expansion: Expansion) -> None:
        """An expansion is over while others may be under way."""
        raise NotImplementedError

    def _idle(self, tree: TreeView) -> None:
        """Nothing is under way: begin a round if there is a budget and the last one used some."""
        may_repeat = self.repeats and tree.generated_tokens > self._tokens_before_round
        if self.num_rounds and not may_repeat:
            return
        self._tokens_before_round = tree.generated_tokens
        self.num_rounds += 1
        self._begin(tree)
        if not self.growth.is_busy:
            self.num_rounds -= 1


def check_sizes(**sizes: object) -> None:
    """Raise InputError for a size that is not an int of at least 1, by its name."""
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise InputError(expected_got(name, "an int >= 1", repr(size)))


def check_number(
    name: str, value: object, *, above: float | None = None, at_least: float | None = None
) -> None:
    """Raise InputError unless `value` is a finite number within the bound that is given."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    holds = math.isfinite(number) and (above is None or number > above)
    if not holds or (at_least is not None and number < at_least):
        bound = "" if above is None else f" > {above:g}"
        bound = bound if at_least is None else f" >= {at_least:g}"
        raise InputError(expected_got(name, f"a number{bound}", repr(value)))
