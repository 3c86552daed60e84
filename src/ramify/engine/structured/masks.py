"""Masks of tokens: which of them a grammar, and the rules of ending, allow at each row.

A mask is [W] int32, W = ceil(vocab / 32): bit t % 32 of word t // 32 is set where token t may come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from llguidance import LLExecutor
from llguidance.numpy import fill_next_token_bitmask, fill_next_token_bitmask_par
from torch import Tensor

from ramify.engine.structured.state import GrammarState


class MaskMaker:
    """Computes the masks of one vocabulary, those of several states by several threads."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._num_words = -(-vocab_size // 32)
        self._threads: LLExecutor | None = None

    def of(self, states: Sequence[GrammarState]) -> np.ndarray:
        """What may come next by the grammar alone: [len(states), W] int32; the end is left out.

        A row is empty where a text is over, and where a state is in error.
        """
        # room for the token that stands for the end: it may lie behind the vocabulary
        ends = [state.end_token for state in states]
        words = max(self._num_words, max(ends, default=0) // 32 + 1)
        masks = np.zeros((len(states), words), dtype=np.int32)
        if len(states) == 1:
            fill_next_token_bitmask(states[0].matcher, masks)
        elif states:
            if self._threads is None:
                self._threads = LLExecutor()
            pairs = [(state.matcher, row) for row, state in enumerate(states)]
            fill_next_token_bitmask_par(self._threads, pairs, masks)
        for mask, token in zip(masks, ends, strict=True):
            clear(mask, token)
        return masks[:, : self._num_words]

    def with_ends(
        self, states: Sequence[GrammarState], ends: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """What may come next, [len(states), W] int32: `ends` of each too where its text may end."""
        masks = self.of(states)
        for mask, state, tokens in zip(masks, states, ends, strict=True):
            if state.is_accepting:
                allow(mask, tokens)
        return masks


def allow(mask: np.ndarray, tokens: Sequence[int]) -> None:
    """Set the bits of tokens."""
    for token in tokens:
        mask.view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)


def clear(mask: np.ndarray, token: int) -> None:
    """Take a token's bit away."""
    mask.view(np.uint32)[token // 32] &= ~np.uint32(1 << token % 32)


def contains(mask: np.ndarray, token: int) -> bool:
    """Whether a token's bit is set."""
    return bool(mask.view(np.uint32)[token // 32] >> np.uint32(token % 32) & np.uint32(1))


def allowed_tokens(masks: np.ndarray, vocab_size: int, device: torch.device) -> Tensor:
    """Masks [n, W] as [n, vocab] bool on a device; nobody waits for the copy."""
    octets = np.ascontiguousarray(masks).view(np.uint8)
    if device.type == "cpu":
        bits = np.unpackbits(octets, axis=1, count=vocab_size, bitorder="little")
        return torch.from_numpy(bits.view(np.bool_))
    sent = torch.from_numpy(octets).pin_memory().to(device, non_blocking=True)
    shifted = sent[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1
    return shifted.view(len(masks), -1)[:, :vocab_size].bool()
