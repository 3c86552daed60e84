"""How a tree search walks each family: where a step ends, how wide, and who judges.

The scorer is the family's checker. It knows the rules and nothing ahead: a text that breaks a rule
is cut, a right answer ends the search. On puzzles the model is asked as well whether the target
can still be reached, with the question it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ramify.core.params import SamplingParams
from ramify.search.growth import State
from ramify.search.scorer import Judge, Scorer, Value
from ramify.zoo.tasks import JUDGE_SUFFIX, NO, YES, Problem, get_task


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The settings of a tree of thoughts on one family."""

    max_tokens: int  # of one step
    depth: int  # steps of the longest answer
    k: int | tuple[int, ...]  # branches tried from a node, for all levels or level by level
    width: int  # nodes kept at a level
    temperature: float = 1.0
    stop: tuple[str, ...] = ("\n",)
    judge: Judge | None = None
    budget_tokens: int | None = None  # where a search gives up unless told otherwise

    def params(self, *, seed: int | None = None) -> SamplingParams:
        """Sampling of one step; its stop stays in the text, so that steps join into an answer."""
        return SamplingParams(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stop=self.stop,
            include_stop_str_in_output=True,
            seed=seed,
        )


PUZZLE_JUDGE = Judge(suffix=JUDGE_SUFFIX, positive=YES, negative=NO)

_LEFT = re.compile(r" left([ 0-9]+)\n\Z")

STEPS: dict[str, Steps] = {
    "puzzle": Steps(
        max_tokens=24,
        depth=3,
        k=(2, 1, 1),
        width=1,
        temperature=1.3,
        judge=PUZZLE_JUDGE,
        budget_tokens=240,
    ),
    # a list is one line: its steps are some digits each, so that a wrong turn is seen early
    "sort": Steps(max_tokens=8, depth=6, k=2, width=1, stop=()),
    "merge": Steps(max_tokens=8, depth=6, k=2, width=1, stop=()),
    "documents": Steps(max_tokens=8, depth=1, k=4, width=1, stop=()),
}
"""Found on the tuning split of `ramify.zoo.evaluate`, which reports on another one."""


SIZES: dict[str, dict[str, Any]] = {
    "tot_dfs": {"k": 3},
    "dvts": {"width": 2, "k": 2},
    "rebase": {"width": 8},
    "mcts": {"k": 2},
    "smc": {"width": 8},
}
"""How wide each search over steps is on every family; a tree of thoughts is told by `Steps`."""


def search_options(
    algorithm: str, steps: Steps, problem: Problem | None, *, seed: int | None = None
) -> dict[str, Any]:
    """The arguments of a search over steps, but for its budget; without a problem none checks."""
    sizes = {"k": steps.k, "width": steps.width} if algorithm == "tot" else SIZES[algorithm]
    return {
        "params": steps.params(seed=seed),
        "depth": steps.depth,
        "scorer": None if problem is None else checker_scorer(problem),
        "judge": steps.judge,
        "state": None if problem is None else state_of(problem),
        **sizes,
    }


def checker_scorer(problem: Problem) -> Scorer:
    """A scorer that applies the problem's checker to a text that may be unfinished."""
    task = get_task(problem.task)

    def score(prompt: str, completion: str) -> Value:
        partial = task.check_partial(problem, completion)
        is_solved = partial.solved or task.check(problem, completion).solved
        return Value(score=partial.score, solved=is_solved, prune=not partial.legal)

    return score


def state_of(problem: Problem) -> State | None:
    """What a text has arrived at, where different texts can arrive at the same: on puzzles.

    Two legal derivations that leave the same numbers are copies of each other; None elsewhere.
    """
    if problem.task != "puzzle":
        return None
    task = get_task(problem.task)

    def state(completion: str) -> Hashable:
        left = _LEFT.search(completion)
        if left is None or not task.check_partial(problem, completion).legal:
            return completion
        return tuple(sorted(left[1].split()))

    return state
