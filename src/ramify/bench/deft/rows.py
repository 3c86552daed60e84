"""Rows of `ramify bench deft`: one method on one workload, bytes of all layers and all steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ramify.bench.env import Environment
from ramify.bench.rows import read_rows_of


@dataclass(frozen=True, kw_only=True)
class DeftRow:
    """Sums over every step of all trees, of all layers; None where nothing was counted or timed.

    Counted are Ramify's methods, from their plans for an H200. Timed is what passed its check at
    every step that was measured.
    """

    question: str  # always "deft"
    workload: str
    provider: str
    num_trees: int
    num_steps: int
    layers: int
    heads: str
    head_dim: int
    kv_bytes_unique: int | None  # 16 bit, KV heads only
    kv_bytes_read: int | None  # every item of a plan reads its KV once
    kv_bytes_loaded: int | None  # items of many rows load it again for every 128 packed rows
    partial_bytes: int | None  # float32, written once and read once
    kv_bytes_paper: int | None  # read, in the unit of the paper: per query head
    attention_ms: float | None  # p50 of one layer, summed over steps and layers
    num_points: int  # steps that were measured
    reason: str | None  # why there is no time
    environment: Environment

    @property
    def kv_bytes_duplicated(self) -> int | None:
        """Bytes read more than once."""
        if self.kv_bytes_read is None or self.kv_bytes_unique is None:
            return None
        return self.kv_bytes_read - self.kv_bytes_unique


def read_json(path: Path) -> list[DeftRow]:
    """The rows of this kind in a file of JSON lines."""
    return read_rows_of(path, DeftRow, "deft")
