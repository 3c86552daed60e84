"""The executor of an NVIDIA GPU: fused kernels, and a CUDA graph for every step of few rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ramify.attention import TreeAttention
from ramify.engine.batch import StepBatch
from ramify.engine.decode_loop import MAX_LOOP_ROWS
from ramify.engine.device_draws import DeviceDraws
from ramify.engine.executor import Executor
from ramify.models import Decoder
from ramify.models.fused import FusedDecoder


class CudaExecutor(Executor):
    """See Executor. The model's norms are folded into its weights."""

    def __init__(
        self,
        model: Decoder,
        *,
        num_slots: int,
        method: str,
        backend: str,
        use_graphs: bool,
        fp8_weights: bool = False,
        fp8_kv: bool = False,
    ) -> None:
        # scales are measured with the weights as they were loaded
        super().__init__(model, num_slots=num_slots, method=method, backend=backend, fp8_kv=fp8_kv)
        self._fused = FusedDecoder(model, fp8_weights=fp8_weights)
        draws = DeviceDraws(MAX_LOOP_ROWS, model.config.vocab_size, self.device)
        self.loop = self.open_loop(draws, max_rows=MAX_LOOP_ROWS, use_graphs=use_graphs)
        self._graph_loop = self.loop if use_graphs else None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on one device."""
        return self._fused.weight_bytes

    def run(self, batch: StepBatch) -> Tensor:
        """Compute the step's rows, write their K and V; logits [n, vocab] in the model's dtype."""
        loop = self._graph_loop
        if loop is not None and loop.load(batch):
            logits, rows = loop.run_once(), batch.logit_rows
            self.show_hidden(len(logits))
            if np.array_equal(rows, np.arange(len(logits))):
                return logits
            # pinned: else the copy would wait for the step, and the host has things to do
            index = torch.from_numpy(rows).pin_memory().to(self.device, non_blocking=True)
            if self.hidden is not None:
                self.hidden = self.hidden.index_select(0, index)
            return logits.index_select(0, index)
        return super().run(batch)

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        attention: TreeAttention,
        logit_rows: Tensor | None = None,
    ) -> Tensor:
        """See Executor.forward; logits are in the model's dtype."""

        def attend(layer: int, q: Tensor, window: int | None) -> Tensor:
            pools = self._k_pool[layer], self._v_pool[layer]
            out, _ = attention.run(q, *pools, window, *self._scales_of(layer))
            return out

        k_scale, v_scale = self._scales or (None, None)
        hidden = self._fused.hidden(
            token_ids,
            positions,
            slots,
            self._k_pool,
            self._v_pool,
            attend,
            logit_rows,
            k_scale=k_scale,
            v_scale=v_scale,
        )
        self._note_hidden(hidden)
        return self._fused.logits_of(hidden)
