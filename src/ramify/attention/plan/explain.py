"""What a plan will do, in numbers: items, tiles, bytes, sharing, predicted time, method and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.plan import AttentionPlan
from ramify.attention.plan.predict import predict
from ramify.core.errors import InputError, expected_got

ROW_TILES = (16, 32, 64, 128)  # packed rows (row x group) of one tile


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """One layer's attention of one step, as predicted from its plan. Bytes are per layer."""

    method: str
    why: str
    num_nodes: int
    num_rows: int
    num_items: int
    num_pieces: int
    num_tiles: int  # item x row tile x KV head
    num_causal_pieces: int
    unique_tokens: int
    read_tokens: int  # with workers each row tile reads for itself, without them each item
    reread_tokens: int
    kv_bytes_unique: int
    kv_bytes_read: int
    kv_bytes_reread: int
    kv_bytes_per_branch: int
    partial_rows: int
    partial_bytes: int  # written once and read once
    num_merges: int  # rows with several partial results
    most_partials: int  # of one row; 1 where nothing is merged
    sharing_factor: float  # per-branch reads over unique tokens
    num_workers: int | None  # per KV head; None: the plan is not for workers
    busiest_over_mean: float | None  # time of the busiest worker over that of all
    bandwidth_bytes_per_s: float | None  # behind predicted_us, where no cost table is
    predicted_us: float


def explain(
    plan: AttentionPlan,
    heads: HeadShape,
    *,
    tuning: Tuning | None = None,
    bandwidth_bytes_per_s: float = 20e9,
) -> PlanReport:
    """Predict what one layer reads and how long that takes.

    Args:
        tuning: what the plan was cut for: the time is that of its cost table, see plan/predict.py.
        bandwidth_bytes_per_s: without it the time is that of all bytes at this rate; default about
            what two cores of a server CPU reach.
    Raises:
        InputError: bandwidth that is not positive.
    """
    if not bandwidth_bytes_per_s > 0:
        raise InputError(expected_got("bandwidth_bytes_per_s", "above 0", bandwidth_bytes_per_s))
    on_workers = None if tuning is None else predict(plan, heads, tuning)
    read_tokens = plan.read_tokens if on_workers is None else on_workers.read_tokens
    unique, read = plan.unique_tokens * heads.token_bytes, read_tokens * heads.token_bytes
    partial = 2 * plan.partial_rows * heads.partial_bytes
    if on_workers is None:
        num_tiles, us = _num_tiles(plan, heads), (read + partial) / bandwidth_bytes_per_s * 1e6
    else:
        num_tiles, us = on_workers.num_units * heads.num_kv_heads, on_workers.us
    return PlanReport(
        method=plan.method,
        why=plan.why,
        num_nodes=plan.num_nodes,
        num_rows=plan.num_rows,
        num_items=plan.num_items,
        num_pieces=plan.num_pieces,
        num_tiles=num_tiles,
        num_causal_pieces=int(plan.piece_causal.sum()),
        unique_tokens=plan.unique_tokens,
        read_tokens=read_tokens,
        reread_tokens=read_tokens - plan.unique_tokens,
        kv_bytes_unique=unique,
        kv_bytes_read=read,
        kv_bytes_reread=read - unique,
        kv_bytes_per_branch=plan.per_branch_tokens * heads.token_bytes,
        partial_rows=plan.partial_rows,
        partial_bytes=partial,
        num_merges=int((plan.partials_per_row > 1).sum()),
        most_partials=int(plan.partials_per_row.max(initial=1)),
        sharing_factor=plan.per_branch_tokens / max(plan.unique_tokens, 1),
        num_workers=None if on_workers is None else on_workers.num_workers,
        busiest_over_mean=None if on_workers is None else on_workers.busiest_over_mean,
        bandwidth_bytes_per_s=bandwidth_bytes_per_s if on_workers is None else None,
        predicted_us=us,
    )


def _num_tiles(plan: AttentionPlan, heads: HeadShape) -> int:
    """Tiles with the smallest row tile that holds each item's packed rows, or the largest."""
    packed = (plan.item_hi - plan.item_lo) * heads.group
    tile = np.asarray(ROW_TILES)[np.searchsorted(ROW_TILES[:-1], packed)]
    return int((-(-packed // tile)).sum()) * heads.num_kv_heads
