"""What the units of a work list read under a sliding window: the plan itself knows no window.

One plan serves layers with and without a window, so the kernel skips, unit by unit, what lies
before the window of the unit's earliest row; here is the same rule for counting bytes.
"""

from __future__ import annotations

import numpy as np

from ramify.attention.plan.pieces import IntArray, expand
from ramify.attention.plan.work import WorkList

NEVER = 1 << 30  # above every position: a row that sees nothing


def windowed_tokens(work: WorkList, window: int) -> int:
    """Tokens loaded when a row at position p sees positions above p - window. O(units x pieces)."""
    units = np.concatenate(list(work.units.values())).astype(np.int64)
    oldest = _earliest_row(work, units) - window + 1
    unit, within = expand(units[:, 3] - units[:, 2])
    piece = work.pieces[units[unit, 2] + within].astype(np.int64)
    skipped = np.maximum(oldest[unit] - piece[:, 4], 0)
    in_spans = np.maximum(piece[:, 1] - skipped, 0).sum()
    unit, within = expand(units[:, 5] - units[:, 4])
    gathered = work.tokens[3, units[unit, 4] + within] >= oldest[unit]
    return int(in_spans + np.count_nonzero(gathered))


def _earliest_row(work: WorkList, units: IntArray) -> IntArray:
    """[W] lowest position of each unit's rows."""
    position = np.where(work.rows[1] >= 0, work.rows[1], NEVER).astype(np.int64)
    unit, within = expand(units[:, 1])
    begin = np.cumsum(units[:, 1]) - units[:, 1]
    if len(begin) == 0:
        return begin
    # units have a row at least, so no segment is empty
    return np.minimum.reduceat(position[units[unit, 0] + within], begin)
