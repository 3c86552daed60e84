"""Run one step on the device: weights, the KV pool and the attention operator live here."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext

import torch
from torch import Tensor

from ramify.attention import TreeAttention
from ramify.core.errors import ConfigError, expected_got
from ramify.engine.batch import StepBatch
from ramify.engine.decode_loop import MAX_LOOP_ROWS, DecodeLoop, Draws
from ramify.engine.device_clock import DeviceClock
from ramify.engine.draws import DrawTable
from ramify.engine.kv_scales import FP8, kv_scales, to_fp8
from ramify.engine.startup import Stopwatch
from ramify.models import Decoder

NODES_PER_ROW = 8
"""Room for plans that graphs replay: nodes of a forest per row. Beyond, steps are launched."""


class Executor:
    """Owns the weights and the KV pool; turns a `StepBatch` into logits.

    The pool holds, per layer, K and V [num_slots + 1, Hkv, D]; the last slot is scratch, written by
    probes and by rows that pad a step, and read by nobody.

    Attributes:
        loop: can run decode steps ahead of the host; None: every step is waited for.
        pool_s: seconds that making the pool took.
        hidden: [n, hidden] in the model's dtype, the last hidden states from which the last `run`
            made its logits, valid until the next step; None unless `keep_hidden` was called.

    Raises ConfigError when there is no memory for the pool.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        num_slots: int,
        method: str,
        backend: str,
        fp8_kv: bool = False,
    ) -> None:
        config = model.config
        weight = next(model.parameters())
        self.model = model
        self.device = weight.device
        self.dtype = weight.dtype
        self.scratch_slot = num_slots
        self.loop: DecodeLoop | None = None
        shape = (config.num_layers, num_slots + 1, config.num_kv_heads, config.head_dim)
        watch = Stopwatch(self.device)
        self._kv_dtype = FP8 if fp8_kv else weight.dtype
        self._k_pool, self._v_pool = self._make_pool(shape), self._make_pool(shape)
        self.pool_s = watch.lap()
        self._scales = kv_scales(model) if fp8_kv else None
        self._method, self._backend = method, backend
        self.attention = self.open_attention()
        self.method_in_use = method
        self.attention_s = 0.0
        self._clock: DeviceClock | None = None
        self.hidden: Tensor | None = None
        self._hidden_rows: Tensor | None = None

    def _make_pool(self, shape: tuple[int, ...]) -> Tensor:
        try:
            return torch.zeros(shape, dtype=self._kv_dtype, device=self.device)
        except RuntimeError as error:  # out of memory, which has no type of its own on a CPU
            pool_gib = 2 * math.prod(shape) * self._kv_dtype.itemsize / 2**30
            got = f"{self.scratch_slot} (a KV pool of {pool_gib:.2f} GiB)"
            wanted = f"a number that the memory of {self.device} has room for"
            raise ConfigError(expected_got("num_slots", wanted, got)) from error

    def open_attention(self) -> TreeAttention:
        """An attention operator for the model's heads, with plans of its own."""
        config = self.model.config
        return TreeAttention(
            config.num_q_heads,
            config.num_kv_heads,
            config.head_dim,
            dtype=self.dtype,
            device=self.device,
            method=self._method,
            backend=self._backend,
            kv_dtype=None if self._scales is None else self._kv_dtype,
        )

    def open_loop(self, draws: Draws, *, max_rows: int, use_graphs: bool) -> DecodeLoop:
        """A loop of decode steps, with an attention operator of its own."""
        attention = self.open_attention()
        if use_graphs:
            attention.reserve(rows=max_rows, nodes=NODES_PER_ROW * max_rows)
        return DecodeLoop(
            self.forward,
            attention,
            draws,
            scratch_slot=self.scratch_slot,
            max_rows=max_rows,
            use_graphs=use_graphs,
        )

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token's K and V take over all layers."""
        layers, _, heads, dim = self._k_pool.shape
        return 2 * layers * heads * dim * self._k_pool.element_size()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on one device."""
        return sum(weight.nbytes for weight in self.model.parameters())

    @property
    def kv_bytes_read(self) -> int:
        """Bytes of K and V that attention has read so far; replays of graphs are not counted."""
        read = self.attention.kv_bytes_read
        return read if self.loop is None else read + self.loop.attention.kv_bytes_read

    @property
    def plan_s(self) -> float:
        """Seconds that planning attention has taken the host so far."""
        planned = self.attention.plan_s
        return planned if self.loop is None else planned + self.loop.attention.plan_s

    def keep_hidden(self) -> None:
        """From now on leave the hidden states of a step in `hidden`. Call it before the first step.

        They lie at one address, since a captured graph writes where it wrote at first.
        """
        if self._hidden_rows is None:
            shape = (MAX_LOOP_ROWS, self.model.config.hidden_size)
            self._hidden_rows = torch.zeros(shape, dtype=self.dtype, device=self.device)

    def open_clock(self) -> DeviceClock:
        """A clock that adds up what forward passes take the device from now on."""
        self._clock = DeviceClock(self.device)
        if self.loop is not None:
            self.loop.clock = self._clock
        return self._clock

    def close(self) -> None:
        """Let go of captured steps."""
        if self.loop is not None:
            self.loop.close()

    @torch.inference_mode()
    def run(self, batch: StepBatch) -> Tensor:
        """Compute the step's rows, write their K and V, return logits [n, vocab] float32."""
        self.method_in_use = self.attention.plan(batch.forest).method
        columns = (batch.token_ids, batch.positions, batch.slots, batch.logit_rows)
        token_ids, positions, slots, logit_rows = (
            torch.from_numpy(column).to(self.device) for column in columns
        )
        with self._clock or nullcontext():
            return self.forward(token_ids, positions, slots, self.attention, logit_rows)

    def draw(self, batch: StepBatch, draws: DrawTable) -> bool:
        """Start a step with a draw from every row; False where the loop has no room for it.

        The draws are of the plain kind.
        """
        if self.loop is None or not self.loop.load(batch):
            return False
        self.loop.start(draws)
        self.show_hidden(len(batch.token_ids))
        return True

    def collect(self) -> tuple[list[int], list[float]]:
        """Tokens and log-probabilities of the rows, once the step that `draw` started is over."""
        assert self.loop is not None
        drawn = self.loop.collect()
        return drawn.tokens.tolist(), drawn.logprobs.tolist()

    def show_hidden(self, num_rows: int) -> None:
        """Say where a step that ran no Python has left its hidden states."""
        kept = self._hidden_rows
        self.hidden = None if kept is None else kept[:num_rows]

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        attention: TreeAttention,
        logit_rows: Tensor | None = None,
    ) -> Tensor:
        """Run the model on rows whose forest `attention` has planned.

        Args:
            token_ids, positions, slots: [rows] int64 on the device.
            logit_rows: [n] int64, the rows whose logits are wanted; None: all.
        Returns:
            [n, vocab] float32.
        """

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
            """Store the rows' K and V, then attend over their paths; returns [rows, Hq, D]."""
            start = time.perf_counter()
            scales = self._scales_of(layer)
            pools = self._k_pool[layer], self._v_pool[layer]
            for pool, rows, scale in zip(pools, (k, v), scales, strict=True):
                if scale is None:
                    pool.index_copy_(0, slots, rows)
                else:
                    bytes_of = to_fp8(rows, scale).view(torch.uint8)
                    pool.view(torch.uint8).index_copy_(0, slots, bytes_of)
            out, _ = attention.run(q, *pools, window, *scales)
            self.attention_s += time.perf_counter() - start
            return out

        hidden = self.model.hidden(token_ids, positions, attend, logit_rows)
        self._note_hidden(hidden)
        return self.model.logits_of(hidden)

    def _note_hidden(self, hidden: Tensor) -> None:
        """Keep the hidden states [n, hidden] of a step, if anybody reads them."""
        kept = self._hidden_rows
        if kept is None:
            return
        if len(hidden) > len(kept):  # no graph has so many rows
            self.hidden = hidden
            return
        self.hidden = kept[: len(hidden)]
        self.hidden.copy_(hidden)

    def _scales_of(self, layer: int) -> tuple[Tensor | None, Tensor | None]:
        """Scales of a layer's K and V, [Hkv] float32, where the pool is fp8."""
        if self._scales is None:
            return None, None
        k_scale, v_scale = self._scales
        return k_scale[layer], v_scale[layer]
