"""One decoder layer over a ragged batch of rows: norms, projections, rotation, MLP. Inference only.

Weights are fused (q, k, v in one product; gate and up in another) and multiply from the right,
`rows [n, in] @ weight [in, out]`, so that a step is few and large products.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramify.models.config import ModelConfig
from ramify.models.shard import WHOLE, Shard

# float32 products of few rows with a weight of at most this many elements ran 1.2 to 2 times faster
# on a CPU (MKL) with the weight in [in, out] memory order; larger ones ran up to 2 times slower
IN_MAJOR_MAX_ELEMENTS = 1 << 20


class AttendFn(Protocol):
    """What the engine lends the model for one step: the KV pool and attention over it."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Store k and v of these rows, then return the rows' attention.

        Args:
            layer: index of the layer.
            q: [rows, Hq, D] after rotation; like k and v it may be a strided view.
            k, v: [rows, Hkv, D], k after rotation.
            window: a row sees the last `window` tokens of its path, its own included; None: all.
        Returns:
            [rows, Hq, D], scores scaled by 1 / sqrt(D).
        """
        ...


def frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def allocate_weight(
    num_in: int, num_out: int, dtype: torch.dtype, device: torch.device
) -> nn.Parameter:
    """An uninitialised weight of shape [num_in, num_out], in the memory order that runs faster."""
    is_small = num_in * num_out <= IN_MAJOR_MAX_ELEMENTS
    if is_small and dtype == torch.float32 and device.type == "cpu":
        return frozen(torch.empty(num_in, num_out, dtype=dtype, device=device))
    return frozen(torch.empty(num_out, num_in, dtype=dtype, device=device).t())


def rms_norm(rows: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Divide the last axis by its root mean square, then multiply by the weight.

    Source: Zhang and Sennrich 2019. On a CPU torch's own runs as a chain of small operations; in
    float32 the vector norm makes the chain shorter, and a norm of few rows nearly twice as fast.
    """
    if rows.dtype != torch.float32 or rows.device.type != "cpu":
        return F.rms_norm(rows, rows.shape[-1:], weight, eps)
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    scale = length.square_().mul_(1.0 / rows.shape[-1]).add_(eps).rsqrt_()
    normed = rows * scale
    return normed if weight is None else normed.mul_(weight)


def project(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return rows @ weight if bias is None else torch.addmm(bias, rows, weight)


def project_onto(
    residual: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None, shard: Shard = WHOLE
) -> Tensor:
    """residual + rows @ weight + bias; a shard has a part of the inputs, and the sum is whole."""
    out = torch.addmm(residual, rows, weight) if shard.is_first else rows @ weight
    shard.add_up(out)
    return out if bias is None else out.add_(bias)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pair (i, i + D/2) of every head.

    Args:
        heads: [rows, H, D].
        cos, sin: [rows, 1, D], the angle repeated in both halves; sin negated in the first.
    Returns:
        [rows, H, D], contiguous.
    """
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind an RMSNorm and added to the residual stream."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        dtype: torch.dtype,
        device: torch.device,
        shard: Shard,
    ) -> None:
        super().__init__()
        self.index = index
        self.shard = shard
        self.window = config.traits.layer_windows[index]
        self.num_q_heads = config.num_q_heads
        self.num_qk_heads = config.num_q_heads + config.num_kv_heads
        self.num_heads = self.num_qk_heads + config.num_kv_heads
        self.head_dim = config.head_dim
        self.norm_eps = config.norm_eps
        self._allocate(config, dtype, device)

    def _allocate(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        traits, hidden, inner = config.traits, config.hidden_size, config.intermediate_size
        q_width, qkv_width = self.num_q_heads * self.head_dim, self.num_heads * self.head_dim

        def vector(*shape: int) -> nn.Parameter:
            return frozen(torch.empty(*shape, dtype=dtype, device=device))

        def matrix(num_in: int, num_out: int) -> nn.Parameter:
            return allocate_weight(num_in, num_out, dtype, device)

        self.input_norm = vector(hidden)
        self.qkv = matrix(hidden, qkv_width)
        self.qkv_bias = vector(qkv_width) if traits.has_qkv_bias else None
        # one row per head: the queries' and the keys' weights act in one multiplication
        has_norm = traits.has_qk_norm
        self.qk_norm = vector(self.num_qk_heads, self.head_dim) if has_norm else None
        self.out = matrix(q_width, hidden)
        self.out_bias = vector(hidden) if traits.has_out_bias else None
        self.mlp_norm = vector(hidden)
        self.gate_up = matrix(hidden, 2 * inner)
        self.gate_up_bias = vector(2 * inner) if traits.has_mlp_bias else None
        self.down = matrix(inner, hidden)
        self.down_bias = vector(hidden) if traits.has_mlp_bias else None

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, attend: AttendFn, keep: Tensor | None = None
    ) -> Tensor:
        """Run the layer on x [rows, hidden]; `keep` [n] int64 limits what follows attention."""
        attention = self.attention(x, cos, sin, attend)
        if keep is not None:
            x, attention = x.index_select(0, keep), attention.index_select(0, keep)
        x = project_onto(x, attention, self.out, self.out_bias, self.shard)
        return project_onto(x, self.mlp(x), self.down, self.down_bias, self.shard)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor, attend: AttendFn) -> Tensor:
        """Attention before its output projection: [rows, Hq * D]."""
        normed = rms_norm(x, self.input_norm, self.norm_eps)
        qkv = project(normed, self.qkv, self.qkv_bias).view(-1, self.num_heads, self.head_dim)
        qk, v = qkv[:, : self.num_qk_heads], qkv[:, self.num_qk_heads :]
        if self.qk_norm is not None:
            qk = rms_norm(qk, None, self.norm_eps) * self.qk_norm
        qk = rotate(qk, cos, sin)
        q, k = qk[:, : self.num_q_heads], qk[:, self.num_q_heads :]
        return attend(self.index, q, k, v, self.window).flatten(1)

    def mlp(self, x: Tensor) -> Tensor:
        """The gated activation before its down projection: [rows, intermediate]."""
        normed = rms_norm(x, self.mlp_norm, self.norm_eps)
        gate, up = project(normed, self.gate_up, self.gate_up_bias).chunk(2, dim=-1)
        return F.silu(gate).mul_(up)
