"""reference: the eager meaning of tree attention behind the interface of a backend."""

from __future__ import annotations

import torch
from torch import Tensor

from ramify.attention.backends.base import Backend, LayerOptions
from ramify.attention.plan import AttentionPlan
from ramify.attention.reference import tree_attention_ref
from ramify.core.forest import Forest


class ReferenceBackend(Backend):
    """Explicit masks, no plan: slow, in float32 at least. Counts each row's path as read."""

    name = "reference"
    reads_fp8 = True

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Keep the forest; the plan is not used."""
        self._forest = forest

    def run(self, q: Tensor, k: Tensor, v: Tensor, layer: LayerOptions) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq] in the computing precision."""
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        out, lse = tree_attention_ref(
            q.to(dtype),
            k,
            v,
            self._forest,
            scale=layer.scale,
            softcap=layer.softcap,
            window=layer.window,
            k_scale=layer.k_scale,
            v_scale=layer.v_scale,
        )
        seen = self._forest.path_len
        if layer.window is not None:
            seen = seen.clip(max=layer.window)
        self.kv_bytes_read += int(seen.sum()) * self.heads.token_bytes
        return out.to(q.dtype), lse
