"""Whether drafts pay, step by step, and what branches are charged for what they accepted."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.engine.request import Grow
from ramify.engine.speculation.branch import drafting_of
from ramify.engine.speculation.gain import StepCosts, smoothed


class Judge:
    """Learns what steps and drafts take, and has branches pause whose drafts bring too little.

    Args:
        is_adaptive: branches pause; else they always draft.
    """

    def __init__(self, *, is_adaptive: bool) -> None:
        self._is_adaptive = is_adaptive
        self._costs = StepCosts()
        self._propose_s: float | None = None  # that a drafter takes for a step, of late

    def note_cost(self, num_rows: int, seconds: float) -> None:
        """Learn how long a step took."""
        self._costs.note(num_rows, seconds)

    def note_drafting(self, seconds: float) -> None:
        """Learn how long the drafter took for a step."""
        self._propose_s = smoothed(self._propose_s, seconds)

    def judge(
        self,
        tasks: Sequence[Grow],
        num_kept: Sequence[int],
        num_generated: Sequence[int],
        step: tuple[int, int, float],
    ) -> None:
        """Learn what the drafts of a step have brought.

        Args:
            tasks: those that were asked for drafts.
            num_kept: draft tokens that each accepted.
            num_generated: tokens of each branch, those of the step included.
            step: its rows, those of them that were drafts, and its seconds.
        """
        num_rows, num_drafted, seconds = step
        self.note_cost(num_rows, seconds)
        if not self._is_adaptive:
            return
        ratio = self._costs.ratio(num_rows - num_drafted, num_drafted, self._propose_s or 0.0)
        for task, kept, generated in zip(tasks, num_kept, num_generated, strict=True):
            drafting_of(task).gain.note(kept, ratio, generated)

    def judge_written(self, tasks: Sequence[Grow], step: tuple[int, int, float]) -> None:
        """Likewise of a step whose tokens are written down."""
        num_kept = [drafting_of(task).num_kept for task in tasks]
        num_generated = [len(task.request.tree[task.node].token_ids) for task in tasks]
        self.judge(tasks, num_kept, num_generated, step)


def pays(task: Grow, num_generated: int) -> bool:
    """Whether a branch that had drafts goes on with them after so many tokens."""
    return num_generated >= drafting_of(task).gain.resume_at


def charge_accepted(
    tasks: Sequence[Grow], token_bytes: int, fresh: Sequence[Sequence[int]] = ()
) -> None:
    """Charge what branches alone would have read for the draft tokens of a step they accepted.

    Args:
        fresh: the tokens of each branch, where its path has them already.
    """
    ahead = [len(tokens) for tokens in fresh] or [0] * len(tasks)
    for task, num_fresh in zip(tasks, ahead, strict=True):
        drafting = drafting_of(task)
        kept, drafting.num_kept = drafting.num_kept, 0
        length = drafting.path.length - num_fresh
        # a branch reads its path for each of them
        alone = (2 * length + kept + 1) * kept // 2
        task.request.usage.kv_bytes_per_branch += alone * token_bytes
