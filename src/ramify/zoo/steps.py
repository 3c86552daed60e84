"""How a tree search walks each family: where a step ends, how wide, and who judges.

The scorer is the family's checker. It knows the rules and nothing ahead: a text that breaks a rule
is cut, a right answer ends the search. On puzzles the model is asked as well whether the target
can still be reached, with the question it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
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
    sample_temperature: float = 1.0  # of whole answers, as best-of-n takes them
    stop: tuple[str, ...] = ("\n",)
    judge: Judge | None = None
    budget_tokens: int | None = None  # where a search gives up unless told otherwise
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # in place of SIZES

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
        sample_temperature=1.3,
        judge=PUZZLE_JUDGE,
        budget_tokens=240,
        sizes={"tot_dfs": {"k": 1}},
    ),
    # a list is one line: its steps are some digits each, so that a wrong turn is seen early
    "sort": Steps(max_tokens=8, depth=6, k=2, width=1, stop=()),
    "merge": Steps(max_tokens=8, depth=6, k=2, width=1, stop=()),
    "documents": Steps(max_tokens=8, depth=1, k=4, width=1, stop=()),
}
"""Found on the tuning split of `ramify.zoo.evaluate`, which reports on another one."""


def long_list(size: int) -> Steps:
    """Steps on a list longer than those of training, where the model is sure and often wrong.

    Only a hot draw gets past a wrong digit, and only a short step keeps what else is right. The
    checker sees every wrong digit, so MCTS may stay where it got furthest.
    """
    patient = {"exploration": 0.0, "widening": 0.0, "urgency": 0.0}
    return Steps(
        max_tokens=2,
        depth=size // 2 + 4,
        k=2,
        width=1,
        temperature=2.0,
        sample_temperature=1.5,
        stop=(),
        sizes={"mcts": patient, "tot_dfs": {"k": 1}},
    )


SIZES: dict[str, dict[str, Any]] = {
    "tot_dfs": {"k": 2},
    "dvts": {"width": 2, "k": 3},
    "rebase": {"width": 3, "balance": 0.1},
    "mcts": {"k": 1, "exploration": 0.1, "widening": 0.0, "urgency": 0.7},
    "smc": {"width": 4},
}
"""How wide each search over steps is; a tree of thoughts is told by `Steps`, as exceptions are."""

STEP_BEAM: dict[str, Any] = {"k": (8, 3, 2), "width": 2}
"""A tree of thoughts once through, breadth first."""

JUDGE_THRESHOLD = 0.3
"""Depth first, a step that the judge believes in less is not followed."""


def sizes_of(algorithm: str, steps: Steps) -> dict[str, Any]:
    """How wide a search over steps is on a family."""
    if algorithm == "tot":
        return {"k": steps.k, "width": steps.width}
    return {**SIZES[algorithm], **steps.sizes.get(algorithm, {})}


def search_options(
    algorithm: str, steps: Steps, problem: Problem | None, *, seed: int | None = None
) -> dict[str, Any]:
    """The arguments of a search over steps, but for its budget; without a problem none checks."""
    sizes = sizes_of(algorithm, steps)
    if algorithm == "tot_dfs" and steps.judge is not None:
        sizes = {**sizes, "threshold": JUDGE_THRESHOLD}
    return {
        "params": steps.params(seed=seed),
        "depth": steps.depth,
        "scorer": None if problem is None else checker_scorer(problem),
        "judge": steps.judge,
        "state": None if problem is None else state_of(problem),
        **sizes,
    }


@dataclass(frozen=True, kw_only=True)
class SortPlan:
    """Sorting as a graph of thoughts: parts of at most `part_digits` digits, merged in pairs.

    The prompts are those of the families `sort` and `merge`; nothing stands before them.
    """

    digits: Sequence[str]
    part_digits: int = 8

    @property
    def parts(self) -> list[str]:
        """A prompt for each part, in the order of the digits."""
        begins = range(0, len(self.digits), self.part_digits)
        return [f"sort {' '.join(self.digits[at : at + self.part_digits])}\n" for at in begins]

    def merge(self, left: str, right: str) -> str:
        """The prompt that merges two sorted parts."""
        return f"merge {left.strip()} | {right.strip()}\n"


def check_part(prompt: str, completion: str) -> Value:
    """The checker's verdict on a part of a `SortPlan`, from the prompt alone."""
    task = prompt.split(maxsplit=1)[0]
    verdict = get_task(task).check(Problem(task=task, prompt=prompt), completion)
    return Value(score=verdict.score, solved=verdict.solved)


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
