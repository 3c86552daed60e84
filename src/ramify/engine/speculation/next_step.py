"""The rows of a verifying step out of those of the step before and of what was drawn in it.

Behind a launch, `Ahead` looks at the token tree. Once tokens are drawn, a few array operations make
the next step of them, without a look at any node: the device waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.cache import Cursor, build_forest, next_in_line, slots_ahead
from ramify.core.forest import Forest
from ramify.engine.batch import StepBatch
from ramify.engine.draws import DrawTable
from ramify.engine.sample import SampleRow
from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.graft import grown
from ramify.engine.speculation.joint import JointShape, joint_of

IntArray = npt.NDArray[np.int64]


class Ahead(NamedTuple):
    """B branches while a step computes their tips and drafts."""

    trunk: Forest  # their paths, tips included; a row for each tip
    length: IntArray  # [B] of the paths
    slots: list[IntArray]  # [B] what each lends, then what it may take behind that
    num_lent: list[int]  # [B]

    @classmethod
    def of(cls, cursors: Sequence[Cursor], most: int) -> Ahead:
        """Look at the token tree; each next draft has at most so many tokens."""
        tips = [(cursor.node, cursor.offset) for cursor in cursors]
        return cls(
            build_forest(tips),
            np.array([cursor.length for cursor in cursors], dtype=np.int64),
            [slots_ahead(cursor, most + 1) for cursor in cursors],
            [sum(extent.size for extent in cursor.node.lent) for cursor in cursors],
        )


class Kept(NamedTuple):
    """What B branches keep of a step, by slots."""

    own: list[IntArray]  # [B] slots of draft tokens that were accepted
    line: list[IntArray]  # [B] of the next tip, and behind it of the next draft

    @classmethod
    def of(cls, ahead: Ahead, places: Sequence[Sequence[int]]) -> Kept:
        """What follows from the accepted tokens' places in the drafts' lines, growing [B][...]."""
        parts = zip(ahead.slots, ahead.num_lent, places, strict=True)
        taken = [next_in_line(*part) for part in parts]
        return cls([own for own, _ in taken], [line for _, line in taken])


class NextStep(NamedTuple):
    """A step that is ready to run: B tips, then the drafts below them."""

    batch: StepBatch
    draws: DrawTable
    drafts: list[DraftTree]  # [B]
    loans: list[IntArray]  # [B] slots of each draft, by the tokens' places


class Rules:
    """By which rules each row draws; the same object as long as the shapes of drafts stay."""

    def __init__(self, rules: Sequence[SampleRow]) -> None:
        self._rules = rules
        self._key: tuple[JointShape, tuple[int, ...]] | None = None
        self._rule = np.empty(0, dtype=np.int64)

    def table(self, joint: JointShape, drafting: tuple[int, ...], positions: IntArray) -> DrawTable:
        """The draws of a step.

        Args:
            drafting: the branches with a draft.
            positions: [rows] of the rows' own tokens; each draws the token behind it.
        """
        if self._key is None or self._key[0] is not joint or self._key[1] != drafting:
            drafts = np.array(drafting, dtype=np.int64)[joint.draft]
            self._key = joint, drafting
            self._rule = np.concatenate([np.arange(len(self._rules)), drafts])
        return DrawTable(self._rules, self._rule, positions + 1)


def next_step(
    ahead: Ahead,
    kept: Kept,
    fresh: Sequence[Sequence[int]],
    drafts: Sequence[DraftTree],
    rules: Rules,
) -> NextStep:
    """The step of the newest tokens and of drafts below them.

    Args:
        fresh: [B] tokens that each branch has got, of which the last is the tip.
        drafts: [B], those without a token are none.
    """
    tokens = [new[-1] for new in fresh]
    count = np.array([len(new) for new in fresh])
    tip_slots = np.array([line[0] for line in kept.line])
    drafting = tuple(place for place, draft in enumerate(drafts) if draft.tokens)
    joint = joint_of(tuple(drafts[place].shape for place in drafting))
    branch = np.array(drafting, dtype=np.int64)
    for place in drafting:
        tokens.extend(drafts[place].tokens)
    own = [
        part for pair in zip(kept.own, kept.line, strict=True) for part in (pair[0], pair[1][:1])
    ]
    loans = [line[1 : 1 + len(draft.tokens)] for line, draft in zip(kept.line, drafts, strict=True)]
    lent = np.concatenate(loans)
    forest = grown(ahead.trunk, count, np.concatenate(own), joint, branch, lent)
    tips = ahead.length - 1 + count
    positions = np.concatenate([tips, tips[branch[joint.draft]] + joint.depth])
    slots = np.concatenate([tip_slots, lent[joint.place]])
    batch = StepBatch(
        token_ids=np.array(tokens, dtype=np.int64),
        positions=positions,
        slots=slots,
        logit_rows=np.arange(len(tokens)),
        forest=forest,
        follows=True,
    )
    return NextStep(batch, rules.table(joint, drafting, positions), list(drafts), loans)
