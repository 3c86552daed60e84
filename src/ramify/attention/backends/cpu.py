"""cpu: runs a plan as grouped matrix products, each run of the cache read once for all its rows.

Rows are packed (row x group) per KV head, so a tile is one batched product over the KV heads for
q . k and one for p . v, with K and V in place in the pool. Partial results fold into one running
maximum, sum and output per row, in plan order: the same plan gives the same bits.
16-bit inputs are computed in float32, float64 in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.attention.backends.cpu_tiles import RowTile, Tile, make_tiles
from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.core.forest import Forest


@dataclass(frozen=True, slots=True)
class _State:
    """Running softmax of all ordered rows, packed; `best` starts at the lowest finite number."""

    q: Tensor  # [Hkv, Q * G, D], scaled
    acc: Tensor  # [Hkv, Q * G, D]
    best: Tensor  # [Hkv, Q * G, 1]
    total: Tensor  # [Hkv, Q * G, 1]
    group: int
    softcap: float | None


class CpuBackend:
    """Executes plans on the CPU; see the module's docstring."""

    name = "cpu"

    def __init__(self, heads: HeadShape, device: torch.device) -> None:
        self.heads = heads
        self.device = device
        self.kv_bytes_read = 0

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Take the plan of the coming runs; tiles are made by the first run that needs them."""
        self._plan = plan
        self._tiles: dict[int | None, list[Tile]] = {}
        order = torch.from_numpy(plan.row_order)
        self._order = order.to(self.device)
        self._place = torch.argsort(order).to(self.device)

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        softcap: float | None,
        window: int | None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq] in the computing precision."""
        if window not in self._tiles:
            self._tiles[window] = make_tiles(self._plan, self.heads, window=window)
        state = self._start(q, scale, softcap)
        for tile in self._tiles[window]:
            keys, values = self._load(k, tile), self._load(v, tile)
            for row_tile in tile.row_tiles:
                _fold(state, row_tile, keys, values)
        return self._finish(state, q)

    def _start(self, q: Tensor, scale: float, softcap: float | None) -> _State:
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        num_rows, _, head_dim = q.shape
        shape = (num_rows, self.heads.num_kv_heads, self.heads.group, head_dim)
        ordered = q.index_select(0, self._order).view(shape).permute(1, 0, 2, 3)
        packed = (ordered.to(dtype) * scale).reshape(shape[1], -1, head_dim)
        return _State(
            q=packed,
            acc=torch.zeros_like(packed),
            best=packed.new_full((*packed.shape[:2], 1), torch.finfo(dtype).min),
            total=packed.new_zeros(*packed.shape[:2], 1),
            group=self.heads.group,
            softcap=softcap,
        )

    def _load(self, pool: Tensor, tile: Tile) -> list[Tensor]:
        """The tile's part of a pool as [Hkv, tokens, D] in the computing precision."""
        dtype = torch.float64 if pool.dtype == torch.float64 else torch.float32
        loaded = []
        for segment in tile.segments:
            if isinstance(segment, Tensor):
                part = pool.index_select(0, segment.to(pool.device))
            else:
                part = pool[segment[0] : segment[1]]
            self.kv_bytes_read += part.nbytes
            loaded.append(part.to(dtype).transpose(0, 1))
        return loaded

    def _finish(self, state: _State, q: Tensor) -> tuple[Tensor, Tensor]:
        shape = (self.heads.num_kv_heads, len(q), self.heads.group, -1)
        out = state.acc / state.total.where(state.total > 0, 1.0)
        out = out.view(shape).transpose(0, 1).reshape(q.shape)
        # a row without tokens has total 0, hence -inf
        lse = (state.best + state.total.log()).view(shape).transpose(0, 1).reshape(q.shape[:2])
        return out.index_select(0, self._place).to(q.dtype), lse.index_select(0, self._place)


def _fold(state: _State, rows: RowTile, keys: list[Tensor], values: list[Tensor]) -> None:
    """Fold one tile into the running softmax of its rows."""
    packed = slice(rows.lo * state.group, rows.hi * state.group)
    scores = _scores(state, rows, state.q[:, packed], keys)
    best, total, acc = state.best[:, packed], state.total[:, packed], state.acc[:, packed]
    # `best` is finite from the start, so a row that sees nothing here weighs exp(-inf) = 0
    new_best = torch.maximum(scores.amax(dim=-1, keepdim=True), best)
    weight = scores.sub_(new_best).exp_()
    weight_sum = weight.sum(dim=-1, keepdim=True)
    out = _weighted_sum(weight, values)
    if rows.is_first:
        total.copy_(weight_sum)
        acc.copy_(out)
    else:
        keep = torch.exp(best - new_best)
        total.mul_(keep).add_(weight_sum)
        acc.mul_(keep).add_(out)
    best.copy_(new_best)


def _scores(state: _State, rows: RowTile, q: Tensor, keys: list[Tensor]) -> Tensor:
    """Masked logits [Hkv, rows * G, tokens]."""
    parts = []
    for key, hidden in zip(keys, rows.hidden, strict=True):
        part = torch.bmm(q, key.transpose(1, 2))
        if state.softcap is not None:
            part = part.div_(state.softcap).tanh_().mul_(state.softcap)
        if hidden is not None:
            by_row = part.view(len(part), rows.hi - rows.lo, state.group, -1)
            by_row.masked_fill_(hidden[None, :, None, :].to(part.device), -torch.inf)
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _weighted_sum(weight: Tensor, values: list[Tensor]) -> Tensor:
    """weight [Hkv, rows * G, tokens] times the segments' values: [Hkv, rows * G, D]."""
    if len(values) == 1:
        return torch.bmm(weight, values[0])
    widths = [value.shape[1] for value in values]
    parts = weight.split(widths, dim=-1)
    out = torch.bmm(parts[0], values[0])
    for part, value in zip(parts[1:], values[1:], strict=True):
        out = torch.baddbmm(out, part, value)
    return out
