"""The heads of one attention layer, and the bytes that follow from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """The heads of one attention layer."""

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    itemsize: int  # bytes of one stored element of K or V; q and out may be wider

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_q_heads // self.num_kv_heads

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's K and V."""
        return 2 * self.num_kv_heads * self.head_dim * self.itemsize

    @property
    def partial_bytes(self) -> int:
        """Bytes of one row's partial result: float32 output and lse of every head."""
        return 4 * self.num_q_heads * (self.head_dim + 1)
