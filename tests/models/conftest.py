"""Shared by the tests of the models room: a naive attention, and a tiny checkpoint to damage."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


class NaiveAttend:
    """Causal attention over keys and values kept in plain lists; the meaning of `attend`.

    Before each step, `begin` says which sequence and position every row belongs to.
    """

    def __init__(self) -> None:
        self.layers: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.sequence = torch.empty(0, dtype=torch.int64)
        self.position = torch.empty(0, dtype=torch.int64)
        self.num_new = 0

    def begin(self, sequence: Tensor, position: Tensor) -> None:
        self.sequence = torch.cat((self.sequence, sequence))
        self.position = torch.cat((self.position, position))
        self.num_new = len(position)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        assert len(q) == len(k) == len(v) == self.num_new
        kept = self.layers.setdefault(layer, [])
        kept.append((k.clone(), v.clone()))
        group = q.shape[1] // k.shape[1]
        keys = torch.cat([pair[0] for pair in kept]).repeat_interleave(group, dim=1)
        values = torch.cat([pair[1] for pair in kept]).repeat_interleave(group, dim=1)
        scores = torch.einsum("rhd,thd->hrt", q, keys) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~self._sees(window), -math.inf)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
        return torch.einsum("hrt,thd->rhd", weights, values)

    def _sees(self, window: int | None) -> Tensor:
        row_sequence, row_position = self.sequence[-self.num_new :], self.position[-self.num_new :]
        distance = row_position[:, None] - self.position
        sees = (row_sequence[:, None] == self.sequence) & (distance >= 0)
        return sees if window is None else sees & (distance < window)


@pytest.fixture
def naive_attend() -> type[NaiveAttend]:
    return NaiveAttend


@pytest.fixture(scope="session")
def pristine_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama in one file; never to be changed (copy it)."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(path)
    return path
