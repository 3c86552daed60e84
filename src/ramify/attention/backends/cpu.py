"""cpu: runs a plan as grouped matrix products, each run of the cache read once for all its rows.

Rows are packed (row x group) per KV head, so a tile is one batched product over the KV heads for
q . k and one for p . v, with K and V in place in the pool. Partial results fold into one running
maximum, sum and output per row, in a fixed order: the same plan gives the same bits.
16-bit and fp8 inputs are computed in float32, float64 in float64; the scales of fp8 meet q and out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.attention.backends.base import Backend, LayerOptions
from ramify.attention.backends.cpu_tiles import Batch, RowTile, Schedule, Tile, make_schedule
from ramify.attention.plan import AttentionPlan
from ramify.core.forest import Forest


@dataclass(frozen=True, slots=True)
class _State:
    """Packed queries and the running softmax of all ordered rows."""

    q: Tensor  # [Hkv, Q * G, D], scaled
    acc: Tensor  # [Hkv, Q * G, D]
    best: Tensor  # [Hkv, Q * G, 1], at first the lowest finite number
    total: Tensor  # [Hkv, Q * G, 1]
    group: int
    softcap: float | None


@dataclass(frozen=True, slots=True)
class _Partial:
    """One tile's result: maximum, sum of exp(score - maximum), and the weighted sum of values."""

    best: Tensor  # [Hkv, rows * G, 1]
    total: Tensor  # [Hkv, rows * G, 1]
    acc: Tensor  # [Hkv, rows * G, D]


class CpuBackend(Backend):
    """Executes plans on the CPU; see the module's docstring."""

    name = "cpu"
    reads_fp8 = True

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Take the plan of the coming runs; the first run with a window makes its schedule."""
        self._plan = plan
        self._schedules: dict[int | None, Schedule] = {}
        self._order = torch.from_numpy(plan.row_order)
        self._place = torch.argsort(self._order)

    def run(self, q: Tensor, k: Tensor, v: Tensor, layer: LayerOptions) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq] in the computing precision."""
        schedule = self._scheduled(layer.window)
        state = self._start(q, layer)
        for tile in schedule.tiles:
            keys, values = self._load(k, tile), self._load(v, tile)
            for rows in tile.row_tiles:
                _fold_tile(state, rows, keys, values)
        for batch in schedule.batches:
            _fold_batch(state, batch, self._gather(k, batch), self._gather(v, batch))
        return self._finish(state, q, layer)

    def _scheduled(self, window: int | None) -> Schedule:
        if window not in self._schedules:
            self._schedules[window] = make_schedule(self._plan, self.heads, window=window)
        return self._schedules[window]

    def _start(self, q: Tensor, layer: LayerOptions) -> _State:
        dtype = _computing_dtype(q)
        num_rows, _, head_dim = q.shape
        shape = (num_rows, self.heads.num_kv_heads, self.heads.group, head_dim)
        ordered = q.index_select(0, self._order).view(shape).transpose(0, 1)
        packed = ordered.to(dtype) * layer.scale
        if layer.k_scale is not None:
            packed = packed * layer.k_scale[:, None, None, None]
        packed = packed.reshape(shape[1], -1, head_dim)
        return _State(
            q=packed,
            acc=torch.zeros_like(packed),
            best=packed.new_full((*packed.shape[:2], 1), torch.finfo(dtype).min),
            total=packed.new_zeros(*packed.shape[:2], 1),
            group=self.heads.group,
            softcap=layer.softcap,
        )

    def _load(self, pool: Tensor, tile: Tile) -> list[Tensor]:
        """The tile's segments of a pool, each [Hkv, tokens, D] in the computing precision."""
        loaded = []
        for segment in tile.segments:
            if isinstance(segment, Tensor):
                part = pool.index_select(0, segment)
            else:
                part = pool[segment[0] : segment[1]]
            self.kv_bytes_read += part.nbytes
            loaded.append(part.to(_computing_dtype(pool)).transpose(0, 1))
        return loaded

    def _gather(self, pool: Tensor, batch: Batch) -> Tensor:
        """The batch's slots of a pool, [Hkv * n, tokens, D] in the computing precision."""
        part = pool.index_select(0, batch.slots)
        # padding repeats a slot of its chunk, so it is no further read of the pool
        self.kv_bytes_read += part.nbytes // len(part) * batch.num_tokens
        by_head = part.to(_computing_dtype(pool)).transpose(0, 1).contiguous()
        return by_head.view(len(by_head) * batch.size, -1, part.shape[-1])

    def _finish(self, state: _State, q: Tensor, layer: LayerOptions) -> tuple[Tensor, Tensor]:
        shape = (self.heads.num_kv_heads, len(q), self.heads.group)
        out = state.acc / state.total.where(state.total > 0, 1.0)
        if layer.v_scale is not None:
            out = out * layer.v_scale[:, None, None]
        out = out.view(*shape, q.shape[2]).transpose(0, 1).reshape(q.shape)
        # a row without tokens has total 0, hence -inf
        lse = (state.best + state.total.log()).view(shape).transpose(0, 1).reshape(q.shape[:2])
        return out.index_select(0, self._place).to(q.dtype), lse.index_select(0, self._place)


def _computing_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _fold_tile(state: _State, rows: RowTile, keys: list[Tensor], values: list[Tensor]) -> None:
    """Fold the rows of one tile into the running softmax."""
    packed = slice(rows.lo * state.group, rows.hi * state.group)
    parts = []
    for key, bias in zip(keys, rows.bias, strict=True):
        score = _scores(state.q[:, packed], key, state.softcap)
        if bias is not None:
            score.view(len(score), len(bias), state.group, -1).add_(bias[None, :, None])
        parts.append(score)
    part = _partial(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1), values)
    best, total, acc = state.best[:, packed], state.total[:, packed], state.acc[:, packed]
    if not rows.is_first:
        part = _merged(_Partial(best, total, acc), part)
    best.copy_(part.best)
    total.copy_(part.total)
    acc.copy_(part.acc)


def _fold_batch(state: _State, batch: Batch, keys: Tensor, values: Tensor) -> None:
    """Fold a batch of small chunks, [Hkv * n, tokens, D] each, into the running softmax."""
    num_heads, group = len(state.q), state.group
    packed = (batch.rows[:, None] * group + torch.arange(group)).view(-1)
    q = state.q.index_select(1, packed).view(len(keys), -1, keys.shape[-1])
    score = _scores(q, keys, state.softcap)
    if batch.bias is not None:
        num_rows = batch.bias.shape[1]
        by_row = score.view(num_heads, batch.size, num_rows, group, -1)
        by_row.add_(batch.bias[None, :, :, None])
    part = _partial(score, [values])
    part = _Partial(
        *(x.view(num_heads, len(packed), -1) for x in (part.best, part.total, part.acc))
    )
    if not batch.is_first:
        running = (x.index_select(1, packed) for x in (state.best, state.total, state.acc))
        part = _merged(_Partial(*running), part)
    state.best.index_copy_(1, packed, part.best)
    state.total.index_copy_(1, packed, part.total)
    state.acc.index_copy_(1, packed, part.acc)


def _scores(q: Tensor, key: Tensor, softcap: float | None) -> Tensor:
    """Logits [heads, rows * G, tokens]."""
    score = torch.bmm(q, key.transpose(1, 2))
    return score if softcap is None else score.div_(softcap).tanh_().mul_(softcap)


def _partial(score: Tensor, values: list[Tensor]) -> _Partial:
    """Softmax parts of masked logits (overwritten) and their segments' values."""
    # a finite floor lets a row that sees nothing weigh exp(-inf) = 0
    best = score.amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(score.dtype).min)
    weight = score.sub_(best).exp_()
    parts = weight.split([value.shape[1] for value in values], dim=-1)
    acc = torch.bmm(parts[0], values[0])
    for part, value in zip(parts[1:], values[1:], strict=True):
        acc = torch.baddbmm(acc, part, value)
    return _Partial(best, weight.sum(dim=-1, keepdim=True), acc)


def _merged(running: _Partial, new: _Partial) -> _Partial:
    """Two partials of the same rows over disjoint tokens as one."""
    best = torch.maximum(running.best, new.best)
    keep, add = torch.exp(running.best - best), torch.exp(new.best - best)
    return _Partial(
        best,
        running.total * keep + new.total * add,
        running.acc * keep + new.acc * add,
    )
