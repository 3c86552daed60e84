"""Medusa heads draft: from the hidden state behind a branch's last token they guess those ahead.

Head d gives chances for the d-th token from the tip, whatever stands between. A path's chance is
taken for the product of its tokens' chances, and the best tokens are the draft. Where a branch
samples, the noise it will draw with goes into the heads' logits, as with a draft model.
Source: Medusa (Cai et al. 2024); the tree is made anew for each step, not once from calibration.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ramify.core.config import EngineConfig
from ramify.core.speculative import SpeculativeConfig
from ramify.engine.speculation.device_noise import with_noise
from ramify.engine.speculation.draft import DraftContext, DraftTree
from ramify.engine.speculation.shape import ROOT
from ramify.models import read_config, resolve_model_dir
from ramify.models.loader import resolve_dtype
from ramify.models.medusa import MedusaHeads, load_medusa

BESIDE = "medusa"
"""The directory of heads inside that of the model they belong to."""

TOGETHER = 32
"""Branches whose heads are computed at once, which bounds memory: each head has a vocabulary."""


def open_medusa(config: SpeculativeConfig, engine: EngineConfig, target: Path) -> MedusaDrafter:
    """Load heads for the model in `target`. Raises ConfigError."""
    shape, device = read_config(target), torch.device(engine.device)
    heads = load_medusa(
        target / BESIDE if config.model is None else resolve_model_dir(config.model),
        hidden_size=shape.hidden_size,
        vocab_size=shape.vocab_size,
        dtype=resolve_dtype(engine.dtype, shape, device),
        device=device,
    )
    return MedusaDrafter(heads)


class MedusaDrafter:
    """Drafts from hidden states that the engine's last step has left; see ReadsHidden."""

    def __init__(self, heads: MedusaHeads) -> None:
        self._heads = heads
        self._hidden: Tensor | None = None
        self._places: dict[tuple[Hashable, int], int] = {}  # a branch at a length -> its row

    def observe(self, branches: Sequence[tuple[Hashable, int]], hidden: Tensor) -> None:
        """See ReadsHidden."""
        self._places = {branch: place for place, branch in enumerate(branches)}
        self._hidden = hidden

    def learn(self, token_ids: Sequence[int]) -> None:
        """The heads stay as they are."""

    @torch.inference_mode()
    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter. A branch whose last step left no hidden state gets no draft."""
        drafts = [DraftTree()] * len(contexts)
        places = [self._places.get((c.branch, len(c.token_ids))) for c in contexts]
        known = [i for i, place in enumerate(places) if place is not None]
        if self._hidden is None or not known:
            return drafts
        rows = torch.tensor([places[i] for i in known], device=self._hidden.device)
        hidden = self._hidden.index_select(0, rows)
        for first in range(0, len(known), TOGETHER):
            group = known[first : first + TOGETHER]
            guess = self._guess(hidden[first : first + TOGETHER], [contexts[i] for i in group])
            for i, tokens, chances in zip(group, *guess, strict=True):
                limits = contexts[i].max_tokens, contexts[i].max_depth
                drafts[i] = best_tree(tokens, chances, *limits)
        return drafts

    def _guess(
        self, hidden: Tensor, contexts: Sequence[DraftContext]
    ) -> tuple[list[list[list[int]]], list[list[list[float]]]]:
        """The likeliest tokens [branch][head][k] and their chances."""
        logits = self._heads(hidden).transpose(0, 1).flatten(0, 1)
        count = self._heads.num_heads
        draws = [(c.seed, len(c.token_ids) + depth) for c in contexts for depth in range(count)]
        heat = [c.params.temperature for c in contexts for _ in range(count)]
        logits = with_noise(logits, heat, draws)
        most = min(max(c.max_tokens for c in contexts), logits.shape[1])
        chances, tokens = logits.softmax(dim=-1).topk(most, dim=-1)
        shape = (len(contexts), count)
        return tokens.unflatten(0, shape).tolist(), chances.unflatten(0, shape).tolist()


def best_tree(
    tokens: Sequence[Sequence[int]],
    chances: Sequence[Sequence[float]],
    max_tokens: int,
    max_depth: int,
) -> DraftTree:
    """The `max_tokens` likeliest paths of tokens whose chances are independent of one another.

    Args:
        tokens, chances: [depth][k], the likeliest first.
    """
    found: list[int] = []
    parents: list[int] = []
    depth = min(max_depth, len(tokens))
    # a path and what it leads to: its next sibling and its first child are less likely
    waiting = [(-chances[0][0], 0, 0, ROOT, 1.0)] if depth else []
    while waiting and len(found) < max_tokens:
        negative, level, rank, parent, above = heapq.heappop(waiting)
        place = len(found)
        found.append(tokens[level][rank])
        parents.append(parent)
        if rank + 1 < len(tokens[level]):
            sibling = above * chances[level][rank + 1]
            heapq.heappush(waiting, (-sibling, level, rank + 1, parent, above))
        if level + 1 < depth:
            child = -negative * chances[level + 1][0]
            heapq.heappush(waiting, (-child, level + 1, 0, place, -negative))
    return DraftTree(tuple(found), tuple(parents))
