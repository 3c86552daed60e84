"""An executor without a model: everything of the engine runs but the forward pass."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ramify.core.forest import Forest


class Batch(Protocol):
    """What it reads of a step: see engine/batch.py."""

    @property
    def token_ids(self) -> np.ndarray: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def logit_rows(self) -> np.ndarray: ...
    @property
    def forest(self) -> Forest: ...


class NoModel:
    """Answers each step with logits that depend on a row's token and position alone.

    It counts what each step asked for: `rows` computed and `live_tokens`, the unique tokens seen.
    """

    method_in_use = "flatten"
    loop = None
    hidden = None

    def __init__(self, *, num_slots: int, vocab_size: int = 8, kv_bytes_per_token: int = 1) -> None:
        self.scratch_slot = num_slots
        self.vocab_size = vocab_size
        self.kv_bytes_per_token = kv_bytes_per_token
        self.rows: list[int] = []
        self.live_tokens: list[int] = []

    def draw(self, batch: Batch, draws: object) -> bool:
        """Draws nothing in a step."""
        return False

    def run(self, batch: Batch) -> Tensor:
        """Logits [n, vocab] float32."""
        self.rows.append(len(batch.token_ids))
        self.live_tokens.append(batch.forest.unique_tokens)
        at = batch.logit_rows
        mixed = (batch.token_ids[at] * 31 + batch.positions[at])[:, None] * 17
        noise = (mixed + np.arange(self.vocab_size) * 7) % 13
        return torch.from_numpy(noise.astype(np.float32))
