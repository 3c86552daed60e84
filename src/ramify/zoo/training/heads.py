"""Training Medusa heads: which token comes k + 1 places after each hidden state.

The model itself stays as it is, so its hidden states are computed once.
Source: Medusa-1 (Cai et al. 2024): a sum of cross entropies whose weights fall with the distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ramify.models.medusa import MedusaHeads
from ramify.zoo.training.vocab import PAD

NOTHING = -100
"""Target where a text is over."""
DECAY = 0.8
"""Weight of a head's loss against that of the head before it."""


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """How heads are trained."""

    num_heads: int = 5
    num_blocks: int = 1
    num_steps: int = 4000
    rows: int = 512  # hidden states of a step
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0


def targets_of(tokens: Sequence[int], begin: int, num_heads: int) -> Tensor:
    """[len(tokens) - begin, num_heads] int64: what head k is to say at `begin`, `begin` + 1, ...

    Head k looks k + 2 places ahead, since the model's own head says what comes next.
    """
    padded = torch.tensor([*tokens, *[NOTHING] * (num_heads + 1)])
    windows = padded.unfold(0, num_heads, 1)
    return windows[begin + 2 : len(tokens) + 2]


@torch.inference_mode()
def hidden_states(
    model: Any, texts: Sequence[Sequence[int]], rows: int = 32
) -> Iterator[tuple[int, Tensor]]:
    """The place of each text and its last hidden states [len, hidden], shorter texts first.

    Args:
        model: transformers' causal language model.
        rows: texts computed at once; those at the end of a batch's rows are padded.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for first in range(0, len(order), rows):
        places = order[first : first + rows]
        longest = len(texts[places[-1]])
        padded = [[*texts[i], *[PAD] * (longest - len(texts[i]))] for i in places]
        hidden = model.model(torch.tensor(padded)).last_hidden_state
        for i, states in zip(places, hidden, strict=True):
            yield i, states[: len(texts[i])]


def train_heads(heads: MedusaHeads, hidden: Tensor, targets: Tensor, config: HeadsConfig) -> float:
    """Train in place on rows drawn at random; returns the mean loss of the last tenth.

    Args:
        hidden: [n, hidden] float32.
        targets: [n, num_heads] int64, NOTHING where there is none.
    """
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        heads.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)
    weights = DECAY ** torch.arange(heads.num_heads)
    losses = []
    for _ in range(config.num_steps):
        rows = torch.randint(len(hidden), (config.rows,), generator=generator)
        loss = (_losses(heads, hidden[rows], targets[rows]) * weights).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _losses(heads: MedusaHeads, hidden: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of each head [num_heads]."""
    logits = heads(hidden)
    each = zip(logits.unbind(), targets.unbind(1), strict=True)
    return torch.stack([F.cross_entropy(x, y, ignore_index=NOTHING) for x, y in each])


@torch.inference_mode()
def right_shares(heads: MedusaHeads, hidden: Tensor, targets: Tensor) -> list[float]:
    """Share of right first guesses of each head, where there is anything to guess."""
    guessed = heads(hidden).argmax(-1).t()
    known = targets != NOTHING
    return (((guessed == targets) & known).sum(0) / known.sum(0)).tolist()
