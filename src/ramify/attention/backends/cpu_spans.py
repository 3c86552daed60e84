"""Which tokens a CPU takes together: a plan's pieces fused in order, then cut to fit a cache.

A GPU wants many equal items; two cores want few large matrix products and have nothing to balance.
So the cuts between items do not bind here: consecutive pieces run as one when the cells that this
wastes (rows x tokens that no row sees) cost less than another item of small operations. What the
methods still decide is which pieces are read, how often, and in which order they merge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ramify.attention.plan import AttentionPlan, HeadShape

SCORES = 1 << 19  # elements of one score matrix, over all heads: 2 MiB in float32
MIN_TILE_TOKENS = 256
ITEM_COST = 64_000  # multiply-adds worth wasting to save an item of a batched product
MIN_SPARE_CELLS = 64


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one path in consecutive slots, and the ordered rows that may see them."""

    slot: int
    length: int
    position: int  # of the first token
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Spans that run as one, for ordered rows [lo, hi)."""

    spans: list[Span]
    num_tokens: int
    lo: int
    hi: int


def make_chunks(plan: AttentionPlan, heads: HeadShape, window: int | None) -> Iterator[Chunk]:
    """The plan's pieces in order, as chunks: every piece is in exactly one. O(pieces)."""
    spans = _spans(plan)
    if window is not None:
        spans = [kept for span in spans if (kept := _inside_window(plan, span, window))]
    for group in _fused(spans, heads):
        rows = max(span.hi for span in group) - min(span.lo for span in group)
        max_tokens = max(MIN_TILE_TOKENS, SCORES // (heads.num_q_heads * rows))
        yield from _by_tokens(_cut(plan, group, max_tokens), max_tokens)


def _spans(plan: AttentionPlan) -> list[Span]:
    """All pieces in order, joined where slots and positions run on for the same last row.

    Such neighbours lie on one path. The first has the widest interval; its rows that end before
    the second are hidden from it by their position.
    """
    if plan.num_pieces == 0:
        return []
    slot, length, position = plan.piece_slot, plan.piece_len, plan.piece_position
    begins = np.ones(plan.num_pieces, dtype=bool)
    begins[1:] = (
        (slot[1:] != slot[:-1] + length[:-1])
        | (position[1:] != position[:-1] + length[:-1])
        | (plan.piece_hi[1:] != plan.piece_hi[:-1])
    )
    first = np.flatnonzero(begins)
    columns = (
        slot[first],
        np.add.reduceat(length, first),
        position[first],
        plan.piece_lo[first],
        plan.piece_hi[first],
    )
    return [Span(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _fused(spans: list[Span], heads: HeadShape) -> Iterator[list[Span]]:
    """Consecutive spans to run as one: greedy, while fusing costs less than another item."""
    spare = max(MIN_SPARE_CELLS, ITEM_COST // (heads.num_q_heads * heads.head_dim))
    group: list[Span] = []
    lo, hi, tokens = 0, 0, 0
    for span in spans:
        new_lo, new_hi = min(lo, span.lo), max(hi, span.hi)
        apart = (hi - lo) * tokens + (span.hi - span.lo) * span.length
        if group and (new_hi - new_lo) * (tokens + span.length) > apart + spare:
            yield group
            group = []
        if not group:
            new_lo, new_hi, tokens = span.lo, span.hi, 0
        group.append(span)
        lo, hi, tokens = new_lo, new_hi, tokens + span.length
    if group:
        yield group


def _inside_window(plan: AttentionPlan, span: Span, window: int) -> Span | None:
    """The span less the leading tokens that are out of every row's window."""
    skip = int(plan.row_position[span.lo : span.hi].min()) - window + 1 - span.position
    if skip >= span.length:
        return None
    return _sub_span(plan, span, skip, span.length) if skip > 0 else span


def _sub_span(plan: AttentionPlan, span: Span, begin: int, end: int) -> Span:
    """Tokens [begin, end) of a span; rows that see none of them leave its front."""
    position = span.position + begin
    # rows on the path rise in position and the rows below see everything: clipped, they are sorted
    seen = np.minimum(plan.row_position[span.lo : span.hi], span.position + span.length - 1)
    lo = span.lo + int(np.searchsorted(seen, position))
    return Span(span.slot + begin, end - begin, position, lo, span.hi)


def _cut(plan: AttentionPlan, spans: list[Span], max_tokens: int) -> Iterator[Span]:
    """Spans of at most `max_tokens` tokens."""
    for span in spans:
        if span.length <= max_tokens:
            yield span
            continue
        for begin in range(0, span.length, max_tokens):
            yield _sub_span(plan, span, begin, min(begin + max_tokens, span.length))


def _by_tokens(spans: Iterator[Span], max_tokens: int) -> Iterator[Chunk]:
    """Consecutive spans, at most `max_tokens` tokens together."""
    held: list[Span] = []
    tokens = 0
    for span in spans:
        if held and tokens + span.length > max_tokens:
            yield _chunk(held, tokens)
            held, tokens = [], 0
        held.append(span)
        tokens += span.length
    yield _chunk(held, tokens)


def _chunk(spans: list[Span], num_tokens: int) -> Chunk:
    lo, hi = min(span.lo for span in spans), max(span.hi for span in spans)
    return Chunk(spans, num_tokens, lo, hi)
