"""Which tokens a CPU takes together: plan items fused in order, then cut so that scores fit a cache.

A GPU wants many equal items; two cores want few large matrix products. So consecutive items run as
one when the cells that fusing wastes (rows x tokens that no row sees) cost less than another round
of small operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ramify.attention.plan import AttentionPlan, HeadShape

SCORES = 1 << 20  # elements of one score matrix, over all heads: 4 MiB in float32
MIN_TILE_TOKENS = 512
# multiply-adds that one more item of a batched round costs
ITEM_COST = 150_000


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one node in consecutive slots, and the ordered rows that may see them."""

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
    """The plan's pieces in order, each token once per item, as chunks. O(pieces)."""
    for first, last in _fused_items(plan, heads):
        spans = _spans(plan, first, last)
        if window is not None:
            spans = [kept for span in spans if (kept := _inside_window(plan, span, window))]
        if not spans:
            continue
        rows = max(span.hi for span in spans) - min(span.lo for span in spans)
        max_tokens = max(MIN_TILE_TOKENS, SCORES // (heads.num_q_heads * rows))
        yield from _by_tokens(_cut(plan, spans, max_tokens), max_tokens)


def _fused_items(plan: AttentionPlan, heads: HeadShape) -> Iterator[tuple[int, int]]:
    """Ranges of pieces to run as one: greedy, while fusing costs less than another item."""
    if plan.num_items == 0:
        return
    spare = ITEM_COST // (heads.num_q_heads * heads.head_dim)
    indptr = plan.item_indptr.tolist()
    tokens = np.add.reduceat(plan.piece_len, plan.item_indptr[:-1]).tolist()
    los, his = plan.item_lo.tolist(), plan.item_hi.tolist()
    begin, lo, hi, held = 0, los[0], his[0], tokens[0]
    for item in range(1, plan.num_items):
        new_lo, new_hi = min(lo, los[item]), max(hi, his[item])
        apart = (hi - lo) * held + (his[item] - los[item]) * tokens[item]
        if (new_hi - new_lo) * (held + tokens[item]) <= apart + spare:
            lo, hi, held = new_lo, new_hi, held + tokens[item]
        else:
            yield indptr[begin], indptr[item]
            begin, lo, hi, held = item, los[item], his[item], tokens[item]
    yield indptr[begin], indptr[-1]


def _spans(plan: AttentionPlan, first: int, last: int) -> list[Span]:
    """Pieces [first, last), joined where one continues another of the same node."""
    spans: list[Span] = []
    columns = (
        plan.piece_slot,
        plan.piece_len,
        plan.piece_position,
        plan.piece_lo,
        plan.piece_hi,
        plan.piece_node,
    )
    last_node = -1
    for slot, length, position, lo, hi, node in zip(
        *(column[first:last].tolist() for column in columns), strict=True
    ):
        before = spans[-1] if spans and node == last_node else None
        last_node = node
        if before and _continues(before, slot, position, hi):
            joined = before.length + length
            spans[-1] = Span(before.slot, joined, before.position, before.lo, hi)
        else:
            spans.append(Span(slot, length, position, lo, hi))
    return spans


def _continues(span: Span, slot: int, position: int, hi: int) -> bool:
    follows = slot == span.slot + span.length and position == span.position + span.length
    return follows and hi == span.hi


def _inside_window(plan: AttentionPlan, span: Span, window: int) -> Span | None:
    """The span less the leading tokens that are out of every row's window."""
    skip = int(plan.row_position[span.lo : span.hi].min()) - window + 1 - span.position
    if skip >= span.length:
        return None
    return _sub_span(plan, span, skip, span.length) if skip > 0 else span


def _sub_span(plan: AttentionPlan, span: Span, begin: int, end: int) -> Span:
    """Tokens [begin, end) of a span; rows that see none of them leave its front."""
    position = span.position + begin
    # own rows rise in position and the rows below see everything, so clipped they are sorted
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
