"""Stream-K cuts: lists of KV, one per row tile, laid end to end and cut into spans of equal cost.

A row tile is an interval of ordered rows with all the pieces that one of them sees. Cutting the
whole line, not each list, gives every worker the same work whatever the lengths; a span that ends
inside a list costs its rows one more partial result.

Source: LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480), equal spans over ragged lists.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.cut import STEP, TOKENS, cut_lists
from ramify.attention.plan.pieces import IntArray, Visible
from ramify.attention.plan.plan import Parts

MIN_STEPS = {False: 1.0, True: 2.0}  # of a span; a wide one leaves more partial results


class Lists(NamedTuple):
    """T lists of pieces, each for an interval of rows. Entry e is the start of a piece."""

    indptr: IntArray  # [T + 1], CSR over the entries
    entries: npt.NDArray[np.int32]  # [4, E], see plan/cut.py
    row_lo: IntArray  # [T] first ordered row of the list
    row_hi: IntArray  # [T] one past the last


class Spans(NamedTuple):
    """The lists, cut: pieces and items of a plan, which follow one another along the line."""

    parts: Parts
    predicted_us: float  # of the busiest worker, and of a merge where lists are cut


def cut_spans(
    lists: Lists,
    seen: Visible,
    row_position: IntArray,
    tuning: Tuning,
    *,
    is_wide: bool,
    below_us: float = math.inf,
) -> Spans | None:
    """Cut lists of pieces for `tuning.num_workers` workers.

    Args:
        seen: the pieces of the lists.
        row_position: [Q] of the ordered rows.
        is_wide: lists have more packed rows than half a tile, so products may outweigh reads.
        below_us: None if the prediction is not below it.
    """
    costs, fixed = tuning.costs, tuning.fixed_cuts
    compute = costs.compute_us if is_wide else costs.compute_us / 2
    num_entries, room = lists.entries.shape[1], len(lists.indptr) + tuning.num_workers
    if fixed is not None:
        room += int(lists.entries[TOKENS].sum()) // fixed
    columns = np.empty((7, num_entries + room), dtype=np.int64)
    flags = np.empty((2, num_entries + room), dtype=np.bool_)
    items = np.empty((4, room + 1), dtype=np.int64)
    num_cuts, num_items, predicted_us = cut_lists(
        *lists,
        seen.table,
        row_position,
        columns,
        flags,
        items,
        tuning.num_workers,
        fixed or 0,
        max(costs.step_us, compute) / STEP,
        max(costs.reread_us, compute) / STEP,
        costs.unit_us,
        costs.partial_us,
        costs.merge_us,
        MIN_STEPS[is_wide],
        below_us,
    )
    if not predicted_us < below_us:
        return None
    return Spans(Parts(columns, flags, items, num_cuts, num_items), predicted_us)
