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
    ) -> None:
        super().__init__()
        self.config = config = shard.cut(config)
        self.shard = shard
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
        is_tied = config.is_tied
        self.head = None if is_tied else allocate_weight(hidden_size, end - begin, dtype, device)
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
            [n, vocab_size] float32 logits.
        """
        x = F.embedding(token_ids, self.embedding)
        cos, sin = self._rotation(positions)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            # past the last attention, only the wanted rows matter
            x = layer.forward(x, cos, sin, attend, logit_rows if index == last else None)
        x = rms_norm(x, self.norm, self.config.norm_eps)
        return self.shard.join(x @ self.head_weight, self.config.vocab_size).float()

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
