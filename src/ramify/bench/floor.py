"""The least time of a decode step: what it must read, at the rate of a copy."""

from __future__ import annotations

from dataclasses import dataclass

from ramify import LLM
from ramify.profile.shape import DecodeShape


@dataclass(frozen=True, kw_only=True)
class StepFloor:
    """Bytes that a step of one token per branch reads, however clever it is."""

    weight_bytes: int
    kv_bytes: int  # each live token once
    copy_bytes_per_s: float

    @property
    def ms(self) -> float:
        """Milliseconds of reading them."""
        return (self.weight_bytes + self.kv_bytes) / self.copy_bytes_per_s * 1e3


def step_floor(llm: LLM, live_tokens: int, copy_bytes_per_s: float) -> StepFloor:
    """The floor of a step over so many live tokens."""
    return StepFloor(
        weight_bytes=weight_bytes_read(llm),
        kv_bytes=live_tokens * llm.engine.executor.kv_bytes_per_token,
        copy_bytes_per_s=copy_bytes_per_s,
    )


def shape_floor(
    llm: LLM, shape: DecodeShape, new_tokens: int, copy_bytes_per_s: float
) -> StepFloor:
    """The floor of a shape half way through its generation, which is also that of the mean step."""
    return step_floor(llm, shape.unique_tokens(new_tokens // 2), copy_bytes_per_s)


def weight_bytes_read(llm: LLM) -> int:
    """Bytes of all weights but the embedding, of which a step reads a row per branch.

    A tied head reads the embedding too, all of it.
    """
    model, every = llm.engine.executor.model, llm.engine.executor.weight_bytes
    return every if model.head is None else every - model.embedding.nbytes
