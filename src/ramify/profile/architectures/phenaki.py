"""A Phenaki class: video tokens by masked parallel decoding, then pixels (arXiv 2210.02399).

A bidirectional transformer over the tokens of all frames, with cross-attention to the text, fills
in masked tokens over a few steps. A decoder of causal temporal and then spatial layers turns
tokens into patches of pixels. No weights exist; the sizes are what counts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class Attention(nn.Module):
    """Attention with `heads` heads over x `[batch, tokens, width]`, or over a context."""

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        source = width if context_width is None else context_width
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(source, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, *, encoder_hidden_states: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Returns like x."""
        source = x if encoder_hidden_states is None else encoder_hidden_states
        k, v = self.key_value(source).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(x), k, v))
        mixed = scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Self-attention, cross-attention where there is a context, and a feed-forward layer."""

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.cross = None if context_width is None else Attention(width, heads, context_width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, is_causal: bool = False
    ) -> Tensor:
        """Returns like x `[batch, tokens, width]`."""
        x = x + self.attention(self.norms[0](x), is_causal=is_causal)
        if self.cross is not None:
            x = x + self.cross(self.norms[1](x), encoder_hidden_states=context)
        return x + self.down(gelu(self.up(self.norms[2](x))))


class MaskedVideoTransformer(nn.Module):
    """Logits of all video tokens at once."""

    def __init__(
        self,
        width: int = 2048,
        layers: int = 24,
        heads: int = 16,
        vocab_size: int = 8192,
        context_width: int = 4096,
        max_tokens: int = 1536,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size + 1, width)  # one more: the mask
        self.positions = nn.Embedding(max_tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads, context_width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab_size, bias=False)

    def forward(self, input_ids: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Tokens `[batch, tokens]` and text `[batch, words, context_width]` to logits."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.tokens(input_ids) + self.positions(places)
        for block in self.blocks:
            x = block(x, encoder_hidden_states)
        return self.head(self.norm(x))


class VideoTokenDecoder(nn.Module):
    """From tokens to patches of pixels: causal over time, then within each frame."""

    def __init__(
        self,
        width: int = 512,
        layers: int = 4,
        heads: int = 8,
        vocab_size: int = 8192,
        patch: int = 8,
        patch_frames: int = 2,
    ) -> None:
        super().__init__()
        self.codebook = nn.Embedding(vocab_size, width)
        self.temporal = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.spatial = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.pixels = nn.Linear(width, 3 * patch_frames * patch * patch)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Tokens `[frames, pixels]` of one video to `[frames, pixels, values of a patch]`."""
        x = self.codebook(input_ids).transpose(0, 1)
        for block in self.temporal:
            x = block(x, is_causal=True)
        x = x.transpose(0, 1)
        for block in self.spatial:
            x = block(x)
        return self.pixels(x)
