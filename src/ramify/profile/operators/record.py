"""What is kept of one operator: shapes, FLOPs and bytes, and of attention its lengths."""

from __future__ import annotations

from dataclasses import dataclass

MATRIX_PASSES = 4
"""Passes over the similarity matrix when it is written out: scores and probabilities, each
written once and read once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """One scaled-dot-product attention: q `[batch, heads, q_len, head_dim]`."""

    batch: int
    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    value_dim: int
    is_causal: bool
    kv_source: str  # self, context, self+context
    itemsize: int  # bytes of an element

    @property
    def flops(self) -> int:
        """Both products, a causal mask counted dense: 2 per multiply-add."""
        dims = self.head_dim + self.value_dim
        return 2 * self.batch * self.heads * self.q_len * self.kv_len * dims

    @property
    def matrix_bytes(self) -> int:
        """Bytes of the similarity matrix `[batch, heads, q_len, kv_len]`, if it is written out."""
        return self.batch * self.heads * self.q_len * self.kv_len * self.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRecord:
    """One call of an operator."""

    op: str  # aten.convolution, scaled_dot_product_attention, ...
    kind: str  # of operators.kinds
    module: str  # path of the innermost module that called it, "" for the outermost
    dtype: str  # of the first tensor it read, or made
    shapes: tuple[tuple[int, ...], ...]  # of the tensors it read
    flops: int  # 2 per multiply-add of products; arithmetic per element counts 0
    bytes_moved: int  # each distinct element read once, each result written once
    attention: AttentionShape | None = None

    @property
    def matrix_bytes_moved(self) -> int:
        """What attention moves on top of `bytes_moved` when it writes its matrix out."""
        return 0 if self.attention is None else MATRIX_PASSES * self.attention.matrix_bytes
