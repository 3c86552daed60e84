"""Tiles and batches: the matrix products of a CPU run, with their masks, made once per plan.

A tile is one chunk: long spans are used in place, as views of the pool, short ones are gathered.
Small chunks of equal shape, such as the private tails of many branches, run together as a batch
over gathered slots, so sixteen branches cost one round of operations and no masked cells.
Masks exist only where something is hidden, as a bias of 0 or -inf.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramify.attention.backends.cpu_spans import SCORES, Chunk, Span, make_chunks
from ramify.attention.plan import AttentionPlan, HeadShape

MIN_TILE_ROWS = 16
VIEW_TOKENS = 96  # spans at least this long are used in place
GATHERED_ELEMENTS = 60_000  # K elements worth copying to save a round of operations
MIN_PADDED_TOKENS = 16


@dataclass(frozen=True, slots=True)
class RowTile:
    """Ordered rows [lo, hi) of a tile; `bias` has one [rows, tokens], or None, per segment."""

    lo: int
    hi: int
    bias: tuple[Tensor | None, ...]
    is_first: bool  # no earlier tile or batch touched these rows


@dataclass(frozen=True, slots=True)
class Tile:
    """K and V read once, and the row tiles that use them.

    A segment is a slot range used in place, or an index [tokens] of slots to gather.
    """

    segments: tuple[tuple[int, int] | Tensor, ...]
    row_tiles: tuple[RowTile, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """n small chunks of equally many rows, padded to one length, as one batched product."""

    size: int
    slots: Tensor  # [n * padded tokens]; padding repeats the chunk's first slot
    num_tokens: int  # without the padding
    rows: Tensor  # [n * rows] ordered rows, each at most once
    bias: Tensor | None  # [n, rows, padded tokens]
    is_first: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """Tiles, then batches, in the order they run."""

    tiles: list[Tile]
    batches: list[Batch]


@dataclass(slots=True)
class _OpenBatch:
    """Chunks collected for a batch; their row intervals rise and never overlap."""

    end_row: int = 0
    chunks: list[Chunk] = field(default_factory=list)


def make_schedule(plan: AttentionPlan, heads: HeadShape, *, window: int | None = None) -> Schedule:
    """Cut the plan's items into tiles and batches. O(pieces), plus the cells of masks."""
    large: list[Chunk] = []
    shelves: dict[tuple[int, int], list[_OpenBatch]] = {}
    for chunk in make_chunks(plan, heads, window):
        if chunk.num_tokens * heads.num_kv_heads * heads.head_dim > GATHERED_ELEMENTS:
            large.append(chunk)
        else:
            _shelve(shelves, chunk, heads)
    groups = [batch.chunks for shelf in shelves.values() for batch in shelf]
    large += [chunks[0] for chunks in groups if len(chunks) == 1]
    touched = np.zeros(plan.num_rows, dtype=bool)
    tiles = [_tile(plan, heads, chunk, window, touched) for chunk in large]
    batches = [_batch(plan, chunks, window, touched) for chunks in groups if len(chunks) > 1]
    return Schedule(tiles, batches)


def _shelve(
    shelves: dict[tuple[int, int], list[_OpenBatch]], chunk: Chunk, heads: HeadShape
) -> None:
    """Put a small chunk in the first batch of its shape that has room and none of its rows."""
    rows, padded = chunk.hi - chunk.lo, _padded(chunk.num_tokens)
    room = max(1, SCORES // (heads.num_q_heads * rows * padded))
    shelf = shelves.setdefault((rows, padded), [])
    for batch in shelf:
        if batch.end_row <= chunk.lo and len(batch.chunks) < room:
            break
    else:
        batch = _OpenBatch()
        shelf.append(batch)
    batch.chunks.append(chunk)
    batch.end_row = chunk.hi


def _padded(num_tokens: int) -> int:
    """The next power of two, so that few shapes occur."""
    return max(MIN_PADDED_TOKENS, 1 << (num_tokens - 1).bit_length())


def _batch(
    plan: AttentionPlan, chunks: list[Chunk], window: int | None, touched: np.ndarray
) -> Batch:
    width = max(chunk.num_tokens for chunk in chunks)
    num_rows = chunks[0].hi - chunks[0].lo
    slots = np.empty((len(chunks), width), dtype=np.int64)
    bias = np.zeros((len(chunks), num_rows, width), dtype=np.float32)
    for place, chunk in enumerate(chunks):
        slots[place, : chunk.num_tokens] = _slots(chunk.spans)
        slots[place, chunk.num_tokens :] = chunk.spans[0].slot
        bias[place, :, chunk.num_tokens :] = -np.inf
        hidden = _hidden(plan, chunk.spans, chunk.lo, chunk.hi, window)
        if hidden is not None:
            bias[place, :, : chunk.num_tokens][hidden] = -np.inf
    rows = np.concatenate([np.arange(chunk.lo, chunk.hi) for chunk in chunks])
    is_first = not touched[rows].any()
    touched[rows] = True
    return Batch(
        size=len(chunks),
        slots=torch.from_numpy(slots.reshape(-1)),
        num_tokens=sum(chunk.num_tokens for chunk in chunks),
        rows=torch.from_numpy(rows),
        bias=torch.from_numpy(bias) if bias.any() else None,
        is_first=is_first,
    )


def _tile(
    plan: AttentionPlan,
    heads: HeadShape,
    chunk: Chunk,
    window: int | None,
    touched: np.ndarray,
) -> Tile:
    groups = _segments(chunk.spans)
    step = max(MIN_TILE_ROWS, SCORES // (heads.num_q_heads * chunk.num_tokens))
    row_tiles = []
    for begin in range(chunk.lo, chunk.hi, step):
        end = min(begin + step, chunk.hi)
        bias = tuple(_bias(_hidden(plan, group, begin, end, window)) for group in groups)
        row_tiles.append(RowTile(begin, end, bias, not touched[begin:end].any()))
        touched[begin:end] = True
    segments = tuple(
        (group[0].slot, group[0].slot + group[0].length)
        if len(group) == 1
        else torch.from_numpy(_slots(group))
        for group in groups
    )
    return Tile(segments, tuple(row_tiles))


def _segments(spans: list[Span]) -> list[list[Span]]:
    """Long spans alone and first, all short ones together."""
    if len(spans) == 1:
        return [spans]
    long = [[span] for span in spans if span.length >= VIEW_TOKENS]
    short = [span for span in spans if span.length < VIEW_TOKENS]
    return [*long, short] if short else long


def _slots(spans: list[Span]) -> np.ndarray:
    return np.concatenate([np.arange(span.slot, span.slot + span.length) for span in spans])


def _bias(hidden: np.ndarray | None) -> Tensor | None:
    """0 where a row sees a token, -inf where it must not."""
    if hidden is None:
        return None
    return torch.zeros(hidden.shape).masked_fill_(torch.from_numpy(hidden), -torch.inf)


def _hidden(
    plan: AttentionPlan, spans: list[Span], begin: int, end: int, window: int | None
) -> np.ndarray | None:
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
    return ~visible


def _sees_all(plan: AttentionPlan, span: Span, begin: int, end: int, window: int | None) -> bool:
    if begin < span.lo or end > span.hi:
        return False
    # the first row of a span's interval sees least of it
    if plan.row_position[begin] < span.position + span.length - 1:
        return False
    return window is None or span.position > int(plan.row_position[begin:end].max()) - window
