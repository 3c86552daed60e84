"""How a CPU runs a plan: neighbouring items fused into tiles, a tile cut so that scores fit a cache.

A GPU wants many equal items; two cores want few large matrix products. So consecutive items run as
one tile when the cells that fusing wastes (rows x tokens that no row sees) cost less than another
round of small operations. Inside a tile, a long span of slots is used in place, as a view of the
pool; short spans are gathered into one. Masks come from row bounds and positions and exist only
where a tile hides something. Tiles are made once per plan and serve every layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ramify.attention.plan import AttentionPlan, HeadShape

SCORES = 1 << 20  # elements of one tile's score matrix, over all heads: 4 MiB in float32
MIN_TILE_TOKENS = 512
MIN_TILE_ROWS = 16
VIEW_TOKENS = 96  # spans at least this long are used in place
# multiply-adds that one more round of small torch operations costs
ROUND_COST = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one node in consecutive slots, and the rows that may see them."""

    slot: int
    length: int
    position: int  # of the first token
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class RowTile:
    """Ordered rows [lo, hi) of one tile; `hidden` has one mask [rows, tokens] or None a segment."""

    lo: int
    hi: int
    hidden: tuple[Tensor | None, ...]
    is_first: bool  # no earlier tile touched these rows


@dataclass(frozen=True, slots=True)
class Tile:
    """K and V read once, and the row tiles that use them.

    A segment is a slot range used in place, or an index [tokens] of slots to gather.
    """

    segments: tuple[tuple[int, int] | Tensor, ...]
    num_tokens: int
    row_tiles: tuple[RowTile, ...]


def make_tiles(plan: AttentionPlan, heads: HeadShape, *, window: int | None = None) -> list[Tile]:
    """Fuse, cut and mask the plan's items, in order. O(pieces), plus the cells of its masks."""
    assert window is None or window > 0, "the caller checks the window"
    tiles: list[Tile] = []
    touched = np.zeros(plan.num_rows, dtype=bool)
    for first, last in _fused_items(plan, heads):
        spans = _spans(plan, first, last)
        if window is not None:
            spans = [kept for span in spans if (kept := _inside_window(plan, span, window))]
        if not spans:
            continue
        rows = max(span.hi for span in spans) - min(span.lo for span in spans)
        tokens = sum(span.length for span in spans)
        max_tokens = max(MIN_TILE_TOKENS, SCORES // (heads.num_q_heads * rows))
        if tokens > max_tokens:
            spans = _cut(plan, spans, max_tokens)
        for chunk in _by_tokens(spans, max_tokens):
            tiles.append(_tile(plan, heads, chunk, window, touched))
    return tiles


def _fused_items(plan: AttentionPlan, heads: HeadShape) -> Iterator[tuple[int, int]]:
    """Ranges of pieces to run as one: greedy, while fusing costs less than another round."""
    if plan.num_items == 0:
        return
    spare = ROUND_COST // (heads.num_q_heads * heads.head_dim)
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
    previous_node = -1
    for slot, length, position, lo, hi, node in zip(
        *(column[first:last].tolist() for column in columns), strict=True
    ):
        if spans and node == previous_node and _continues(spans[-1], slot, position, hi):
            last_span = spans[-1]
            slot, position, lo = last_span.slot, last_span.position, last_span.lo
            length += last_span.length
            spans.pop()
        spans.append(Span(slot, length, position, lo, hi))
        previous_node = node
    return spans


def _continues(span: Span, slot: int, position: int, hi: int) -> bool:
    return (
        slot == span.slot + span.length
        and position == span.position + span.length
        and hi == span.hi
    )


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


def _cut(plan: AttentionPlan, spans: list[Span], max_tokens: int) -> list[Span]:
    """Spans of at most `max_tokens` tokens."""
    return [
        _sub_span(plan, span, begin, min(begin + max_tokens, span.length))
        for span in spans
        for begin in range(0, span.length, max_tokens)
    ]


def _by_tokens(spans: list[Span], max_tokens: int) -> Iterator[list[Span]]:
    """Consecutive spans, at most `max_tokens` tokens together."""
    chunk: list[Span] = []
    held = 0
    for span in spans:
        if chunk and held + span.length > max_tokens:
            yield chunk
            chunk, held = [], 0
        chunk.append(span)
        held += span.length
    yield chunk


def _tile(
    plan: AttentionPlan,
    heads: HeadShape,
    spans: list[Span],
    window: int | None,
    touched: np.ndarray,
) -> Tile:
    groups = _segments(spans)
    num_tokens = sum(span.length for span in spans)
    lo, hi = min(span.lo for span in spans), max(span.hi for span in spans)
    step = max(MIN_TILE_ROWS, SCORES // (heads.num_q_heads * num_tokens))
    row_tiles = []
    for begin in range(lo, hi, step):
        end = min(begin + step, hi)
        hidden = tuple(_hidden(plan, group, begin, end, window) for group in groups)
        is_first = not touched[begin:end].any()
        row_tiles.append(RowTile(begin, end, hidden, is_first))
        touched[begin:end] = True
    return Tile(tuple(_address(group) for group in groups), num_tokens, tuple(row_tiles))


def _segments(spans: list[Span]) -> list[list[Span]]:
    """Long spans alone, all short ones together; long ones keep their order and come first."""
    if len(spans) == 1:
        return [spans]
    long = [[span] for span in spans if span.length >= VIEW_TOKENS]
    short = [span for span in spans if span.length < VIEW_TOKENS]
    return [*long, short] if short else long


def _address(spans: list[Span]) -> tuple[int, int] | Tensor:
    if len(spans) == 1:
        return spans[0].slot, spans[0].slot + spans[0].length
    return torch.from_numpy(
        np.concatenate([np.arange(span.slot, span.slot + span.length) for span in spans])
    )


def _hidden(
    plan: AttentionPlan, spans: list[Span], begin: int, end: int, window: int | None
) -> Tensor | None:
    """Mask [rows, tokens], true where the row must not see the token; None if it is all false."""
    if all(_sees_all(plan, span, begin, end, window) for span in spans):
        return None
    lengths = [span.length for span in spans]
    position = np.concatenate([span.position + np.arange(span.length) for span in spans])
    lo = np.repeat([span.lo for span in spans], lengths)
    hi = np.repeat([span.hi for span in spans], lengths)
    row = np.arange(begin, end)[:, None]
    last = plan.row_position[begin:end, None]
    visible = (row >= lo) & (row < hi) & (position <= last)
    if window is not None:
        visible &= position > last - window
    return torch.from_numpy(~visible)


def _sees_all(plan: AttentionPlan, span: Span, begin: int, end: int, window: int | None) -> bool:
    if begin < span.lo or end > span.hi:
        return False
    # the first row of a span's interval sees least of it
    if plan.row_position[begin] < span.position + span.length - 1:
        return False
    return window is None or span.position > int(plan.row_position[begin:end].max()) - window
