"""Run one step on the device: weights, the KV pool and the attention operator live here."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ramify.attention import TreeAttention
from ramify.engine.batch import StepBatch
from ramify.models import Decoder


class Executor:
    """Owns the weights and the KV pool; turns a `StepBatch` into logits.

    The pool holds, per layer, K and V [num_slots + 1, Hkv, D]; the last slot is scratch, written by
    probes and read by nobody.
    """

    def __init__(self, model: Decoder, *, num_slots: int, method: str, backend: str) -> None:
        config = model.config
        weight = next(model.parameters())
        self.model = model
        self.device = weight.device
        self.scratch_slot = num_slots
        shape = (config.num_layers, num_slots + 1, config.num_kv_heads, config.head_dim)
        self._k_pool = torch.zeros(shape, dtype=weight.dtype, device=self.device)
        self._v_pool = torch.zeros(shape, dtype=weight.dtype, device=self.device)
        self.attention = TreeAttention(
            config.num_q_heads,
            config.num_kv_heads,
            config.head_dim,
            dtype=weight.dtype,
            device=self.device,
            method=method,
            backend=backend,
        )
        self.method_in_use = method
        self.attention_s = 0.0
        self._slots = torch.empty(0, dtype=torch.long)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token's K and V take over all layers."""
        layers, _, heads, dim = self._k_pool.shape
        return 2 * layers * heads * dim * self._k_pool.element_size()

    @torch.inference_mode()
    def run(self, batch: StepBatch) -> Tensor:
        """Compute the step's rows, write their K and V, return logits [n, vocab] float32."""
        self.method_in_use = self.attention.plan(batch.forest).method
        self._slots = torch.from_numpy(batch.slots).to(self.device)
        return self.model(
            torch.from_numpy(batch.token_ids).to(self.device),
            torch.from_numpy(batch.positions).to(self.device),
            self._attend,
            torch.from_numpy(batch.logit_rows).to(self.device),
        )

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Store the rows' K and V, then attend over their paths; returns [rows, Hq, D]."""
        start = time.perf_counter()
        k_pool, v_pool = self._k_pool[layer], self._v_pool[layer]
        k_pool.index_copy_(0, self._slots, k)
        v_pool.index_copy_(0, self._slots, v)
        out, _ = self.attention.run(q, k_pool, v_pool, window=window)
        self.attention_s += time.perf_counter() - start
        return out
