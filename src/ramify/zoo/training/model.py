"""A plain torch Llama for training, with transformers' parameter names, over token-tree masks.

On a GPU attention is FlexAttention with a block mask made from subtree ends; on a CPU it is SDPA
with the dense mask. Both mean the same: token j is visible to i when `j <= i < ends[j]`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from ramify.zoo.training.vocab import BOS, CONTEXT, EOS, PAD, VOCAB_SIZE

MASK_BLOCK = 128
EMBEDDING_STD = 1.0  # with 0.02 such models do not learn to look things up
WEIGHT_STD = 0.05


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """The shape of the model, under the names of transformers' LlamaConfig."""

    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 64
    vocab_size: int = VOCAB_SIZE
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def hf(self) -> dict[str, Any]:
        """The keyword arguments of LlamaConfig."""
        fields = asdict(self)
        theta = fields.pop("rope_theta")
        return fields | {
            "max_position_embeddings": CONTEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "tie_word_embeddings": False,
        }


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width = config.num_attention_heads * config.head_dim
        kv_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor) -> Tensor:
        q, k, v = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if isinstance(mask, Tensor):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        else:
            out = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)  # type: ignore[assignment]
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, H, S, D]


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        outer, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(outer, inner, bias=False)
        self.up_proj = nn.Linear(outer, inner, bias=False)
        self.down_proj = nn.Linear(inner, outer, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        cos, sin = _rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor, mask: BlockMask | Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        cos, sin = (table[positions][:, None].to(x.dtype) for table in (self.cos, self.sin))
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


class TinyLlama(nn.Module):
    """The causal language model; `state_dict()` is what LlamaForCausalLM loads."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=EMBEDDING_STD if "embed" in name else WEIGHT_STD)
        # predictions start out uniform
        nn.init.zeros_(self.lm_head.weight)

    def forward(self, tokens: Tensor, positions: Tensor, mask: BlockMask | Tensor) -> Tensor:
        """Logits [B, S, V] of tokens [B, S] at positions [B, S]."""
        return self.lm_head(self.model(tokens, positions, mask))


def dense_mask(ends: Tensor) -> Tensor:
    """The visibility mask [B, 1, S, S], True where row i sees column j, from ends [B, S]."""
    column = torch.arange(ends.shape[1], device=ends.device)
    row = column[:, None]
    return ((column <= row) & (ends[:, None, :] > row))[:, None]


def block_mask(ends: Tensor) -> BlockMask:
    """The same mask in blocks of 128 x 128, from ends [B, S]; S a multiple of 128.

    A block below the diagonal is empty when all its subtrees end before the block's first row, and
    full when all end after its last one, so two reductions per block decide without the S x S mask.
    """
    blocks = ends.unflatten(1, (-1, MASK_BLOCK))
    first_row = torch.arange(blocks.shape[1], device=ends.device)[:, None] * MASK_BLOCK
    below = first_row > first_row.T  # [rows, columns]
    touched = blocks.amax(2)[:, None, :] > first_row
    full = below & (blocks.amin(2)[:, None, :] >= first_row + MASK_BLOCK)
    partial = (below & touched & ~full) | (first_row == first_row.T)

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv <= q) & (ends[b, kv] > q)

    return BlockMask.from_kv_blocks(
        *_compress(partial), *_compress(full), BLOCK_SIZE=MASK_BLOCK, mask_mod=visible
    )


def _compress(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Counts [B, 1, R] and column indices [B, 1, R, C], flagged ones first."""
    counts = flags.sum(-1, dtype=torch.int32)
    order = torch.argsort(flags.to(torch.int8), dim=-1, descending=True, stable=True)
    return counts[:, None].contiguous(), order[:, None].to(torch.int32).contiguous()


def _rotary_tables(config: TinyConfig) -> tuple[Tensor, Tensor]:
    """cos and sin [context, head_dim], the two halves alike."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angle = torch.outer(torch.arange(CONTEXT, dtype=torch.float32), config.rope_theta**-half)
    both = torch.cat([angle, angle], dim=1)
    return both.cos(), both.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on [B, H, S, D], halves convention."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin
