"""Which slots a path takes next, foretold: the books of slots follow later (pool.py).

While a step tries tokens on lent slots, those that the path goes on with and those of its next
loan follow from what is kept. Whoever is in a hurry reads them off an array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ramify.cache.node import Cursor
from ramify.cache.slots import Extent, cut

IntArray = npt.NDArray[np.int64]


def slots_ahead(cursor: Cursor, count: int) -> IntArray:
    """Slots that a path's node has lent, then the first `count` of those reserved behind them."""
    node = cursor.node
    return expanded([*node.lent, *cut(node.reserved, count)[0]])


def next_in_line(
    ahead: IntArray, num_lent: int, places: Sequence[int]
) -> tuple[IntArray, IntArray]:
    """What `TokenTree.take_back` of a loan makes of the slots ahead.

    Args:
        ahead: as from `slots_ahead` before it, `num_lent` of them lent.
        places: growing, those that the path keeps.
    Returns:
        The slots kept, and those that the path takes and lends next, in order: as many as were
        asked for behind the loan, at least, or all it has.
    """
    num_kept = len(places)
    if not num_kept or places[-1] == num_kept - 1:  # nothing was passed over
        return ahead[:num_kept], ahead[num_kept:]
    behind = places[-1] + 1
    passed = np.delete(ahead[:behind], places)
    assert behind <= num_lent, "only what was lent is kept"
    return ahead[list(places)], np.concatenate([ahead[behind:], passed])


def expanded(extents: Sequence[Extent]) -> IntArray:
    """[n] the slots of some extents, one after another."""
    if len(extents) == 1:
        return np.arange(*extents[0], dtype=np.int64)
    return np.concatenate(
        [np.empty(0, dtype=np.int64), *(np.arange(b, e, dtype=np.int64) for b, e in extents)]
    )
