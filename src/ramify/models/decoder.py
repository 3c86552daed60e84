"""The decoder all families share: embedding, layers, final norm, logits. No cache, no batch axis.

Rows are a flat ragged batch of tokens from any number of branches. Where a row's context lies is
the engine's affair: it lends `attend` for the step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramify.models.config import ModelConfig
from ramify.models.layers import AttendFn, DecoderLayer, allocate_weight, frozen, rms_norm
from ramify.models.rope import rotary_table
from ramify.models.shard import WHOLE, Shard


class Decoder(nn.Module):
    """A decoder-only model with uninitialised weights; `loader.load_model` fills them.

    The weights stay on `device` in `dtype`. Padding does not exist: every row is a token.

    Args:
        config: of the whole model.
        shard: the part of it to hold; `self.config` then counts this part's heads. All ranks run
            each step together.
        has_head: without one, what the model computes is its last hidden state.
    Raises:
        ConfigError: the model cannot be cut into as many parts.
    """

    rotary: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        shard: Shard = WHOLE,
        has_head: bool = True,
    ) -> None:
        super().__init__()
        self.config = config = shard.cut(config)
        self.shard = shard
        self.has_head = has_head
        self.dtype = dtype
        self.device = device
        hidden_size, vocab_size = config.hidden_size, config.vocab_size
        self.embedding = frozen(torch.empty(vocab_size, hidden_size, dtype=dtype, device=device))
        self.layers = nn.ModuleList(
            DecoderLayer(config, index, dtype, device, shard) for index in range(config.num_layers)
        )
        self.norm = frozen(torch.empty(hidden_size, dtype=dtype, device=device))
        # a tied head is the embedding itself
        begin, end = shard.tokens(vocab_size)
        is_own = has_head and not config.is_tied
        self.head = allocate_weight(hidden_size, end - begin, dtype, device) if is_own else None
        table = rotary_table(config.rope, config.head_dim, config.max_positions, dtype, device)
        self.register_buffer("rotary", table, persistent=False)

    @torch.inference_mode()
    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        attend: AttendFn,
        logit_rows: Tensor | None = None,
    ) -> Tensor:
        """Run one step.

        Args:
            token_ids: [rows] int64, each in [0, vocab_size).
            positions: [rows] int64, each in [0, max_positions): tokens before it on its path.
            attend: stores keys and values and computes attention; called once per layer, in order.
            logit_rows: [n] int64, the rows whose logits are wanted, in any order; None: all.
        Returns:
            [n, vocab_size] float32 logits; without a head [n, hidden_size], see `hidden`.
        """
        return self.logits_of(self.hidden(token_ids, positions, attend, logit_rows))

    @torch.inference_mode()
    def hidden(
        self,
        token_ids: Tensor,
        positions: Tensor,
        attend: AttendFn,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Run one step up to the last norm; arguments as in `forward`.

        Returns:
            [n, hidden_size] in the decoder's dtype: what the head reads.
        """
        x = F.embedding(token_ids, self.embedding)
        cos, sin = self._rotation(positions)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            # past the last attention, only the wanted rows matter
            x = layer.forward(x, cos, sin, attend, rows if index == last else None)
        return rms_norm(x, self.norm, self.config.norm_eps)

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor) -> Tensor:
        """The head on last hidden states [n, hidden_size]: [n, vocab_size] float32."""
        if not self.has_head:
            return hidden.float()
        return self.shard.join(hidden @ self.head_weight, self.config.vocab_size).float()

    @property
    def head_weight(self) -> Tensor:
        """[hidden, tokens] of the tokens whose logits this shard computes."""
        if self.head is not None:
            return self.head
        begin, end = self.shard.tokens(self.config.vocab_size)
        return self.embedding[begin:end].t()

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for `layers.rotate`: two tensors [rows, 1, D]."""
        cos, sin = self.rotary.index_select(0, positions).unsqueeze(1).chunk(2, dim=-1)
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
