"""The meaning of every attention op: eager torch, one explicit mask per row.

Nothing here is fast. Masks come from walking each row's ancestors, not from intervals, so this
file can contradict the plan.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ramify.core.forest import Forest

ROWS_AT_ONCE = 64  # bounds the memory of the dense scores


def visibility_ref(forest: Forest, *, window: int | None = None) -> tuple[Tensor, Tensor]:
    """Explicit masks of a forest.

    Returns:
        slots [T] int64: the cache slot of every token of the forest, node after node;
        visible [Q, T] bool: which row sees which token. With `window`, a row whose last token
        is at position p sees only positions above p - window.
    """
    slots, position, first = _tokens(forest)
    visible = torch.zeros(forest.num_rows, len(slots), dtype=torch.bool)
    for row in range(forest.num_rows):
        node, seen = int(forest.query_node[row]), int(forest.query_len[row])
        while node >= 0:
            visible[row, first[node] : first[node] + seen] = True
            node = int(forest.parent[node])
            seen = int(forest.length[node]) if node >= 0 else 0
        if window is not None:
            last = int(position[visible[row]].max()) if visible[row].any() else -1
            visible[row] &= position > last - window
    return slots, visible


def _tokens(forest: Forest) -> tuple[Tensor, Tensor, list[int]]:
    """Slot and path position of every token, and where each node's tokens begin."""
    slots: list[int] = []
    position: list[int] = []
    first: list[int] = []
    for node in range(forest.num_nodes):
        first.append(len(slots))
        for run in range(int(forest.run_indptr[node]), int(forest.run_indptr[node + 1])):
            begin = int(forest.run_begin[run])
            slots += range(begin, begin + int(forest.run_len[run]))
        start, above = 0, int(forest.parent[node])
        while above >= 0:
            start, above = start + int(forest.length[above]), int(forest.parent[above])
        position += range(start, start + int(forest.length[node]))
    return torch.tensor(slots, dtype=torch.int64), torch.tensor(position, dtype=torch.int64), first


def tree_attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    forest: Forest,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of every row over the tokens it sees, in the precision of q.

    Args:
        q: [Q, Hq, D]; k, v: [num_slots, Hkv, D], of q's dtype or narrower. Slots that no row sees
            may hold anything.
        scale: multiplies q . k; default 1 / sqrt(D).
        softcap: logits become softcap * tanh(logits / softcap).
        window: see `visibility_ref`.
        k_scale, v_scale: [Hkv], k and v stand for k * k_scale and v * v_scale; default ones.
    Returns:
        out [Q, Hq, D] like q and lse [Q, Hq], natural log; a row that sees nothing gives 0, -inf.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    slots, visible = (x.to(q.device) for x in visibility_ref(forest, window=window))
    out, lse = q.new_zeros(q.shape), q.new_full(q.shape[:2], -torch.inf)
    group = q.shape[1] // k.shape[1]
    for begin in range(0, len(q), ROWS_AT_ONCE):
        end = begin + ROWS_AT_ONCE
        mask = visible[begin:end]
        live = mask.any(dim=0)
        keys = _dequantised(k[slots[live]], k_scale, q.dtype).repeat_interleave(group, dim=1)
        values = _dequantised(v[slots[live]], v_scale, q.dtype).repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,thd->qht", q[begin:end], keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        hidden = ~mask[:, None, live]
        scores = scores.masked_fill(hidden, -torch.inf)
        lse[begin:end] = torch.logsumexp(scores, dim=-1)
        weight = torch.softmax(scores, dim=-1).masked_fill(hidden, 0.0)
        out[begin:end] = torch.einsum("qht,thd->qhd", weight, values)
    return out, lse


def _dequantised(tokens: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[T, Hkv, D] of a pool as the numbers they stand for."""
    return tokens.to(dtype) if scale is None else tokens.to(dtype) * scale.to(dtype)[:, None]


def merge_partials_ref(
    partial_out: Tensor, partial_lse: Tensor, merge_indptr: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge attention partials over disjoint KV pieces into one output per query.

    Args:
        partial_out: [W, H, D], each row already divided by its own softmax sum.
        partial_lse: [W, H], natural log; -inf marks an empty piece, whose row is ignored.
        merge_indptr: [Q + 1] int, CSR; query q owns rows merge_indptr[q] to merge_indptr[q + 1].
    Returns:
        out [Q, H, D] and lse [Q, H]; a query with no live piece gives 0 and -inf.
    Source: FlashInfer, Ye et al. 2025 (attention state).
    """
    num_queries = len(merge_indptr) - 1
    out = partial_out.new_zeros(num_queries, *partial_out.shape[1:])
    lse = partial_lse.new_full((num_queries, partial_lse.shape[1]), -torch.inf)
    for query in range(num_queries):
        begin, end = int(merge_indptr[query]), int(merge_indptr[query + 1])
        if begin == end:
            continue
        lse[query] = torch.logsumexp(partial_lse[begin:end], dim=0)
        live = partial_lse[begin:end] > -torch.inf
        weight = torch.exp(partial_lse[begin:end] - lse[query])
        part = partial_out[begin:end] * weight[..., None]
        out[query] = part.where(live[..., None], 0.0).sum(dim=0)
    return out, lse
