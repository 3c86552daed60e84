"""Rows of results: frozen, units in the names, stamped with their environment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from ramify.bench.env import Environment

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class DecodeRow:
    """One attention method on one decode workload. Times add up each step's median over repeats.

    Decode steps only: the prefill of the prompt and what it reads are not in any column.
    """

    question: str  # always "decode"
    workload: str
    model: str
    method: str
    backend: str
    prompt_tokens: int
    num_steps: int
    generated_tokens: int  # computed in those steps
    repeats: int
    attention_ms: float  # all layers of all steps
    total_ms: float
    step_ms: float
    tok_per_s: float
    kv_bytes_read: int  # counted by the backend as it reads
    kv_bytes_expected: int  # computed from the shape of the workload alone
    baseline: str
    attention_speedup: float  # attention time of the baseline over this one
    kv_saving: float  # KV bytes of the baseline over these
    are_tokens_equal: bool  # to those of the baseline
    environment: Environment

    @property
    def are_bytes_as_expected(self) -> bool:
        """Whether the counted and the computed bytes agree."""
        return self.kv_bytes_read == self.kv_bytes_expected


def append_rows(path: Path, rows: Iterable[object]) -> None:
    """Add rows of any kind to a file, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")


def read_rows(path: Path) -> list[DecodeRow]:
    """The decode rows of such a file."""
    return read_rows_of(path, DecodeRow, "decode")


def read_rows_of(path: Path, kind: type[Row], question: str) -> list[Row]:
    """The rows of one kind in such a file; those of other questions are passed over."""
    found = (msgspec.json.decode(line) for line in path.read_bytes().splitlines())
    return [msgspec.convert(row, kind) for row in found if row["question"] == question]
