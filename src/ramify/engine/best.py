"""The most probable continuations of many branches together, chosen where the logits are.

No row is sorted. A row is cut into blocks; of the `count` best continuations none can lie outside
the `count` blocks with the best maxima, as each of those holds one that is at least as good. So
two short sorts do, of the maxima and of those blocks' tokens, and only the result is copied to the
host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ramify.engine.structured.masks import allowed_tokens
from ramify.search.controller import Candidates

BLOCK = 256
"""Tokens of a block: as many maxima as tokens are sorted where a vocabulary has 128 thousand."""


class QueuedBest(NamedTuple):
    """A ranking on its way to the host."""

    packed: Tensor  # [3, n] float64 on the host: branch, token and log-probability
    arrived: torch.cuda.Event | None  # None: it is there
    num_branches: int

    def wait(self) -> Candidates:
        """The continuations, once the device has chosen them; fewer where fewer are possible."""
        if self.arrived is not None:
            self.arrived.synchronize()
        found: np.ndarray = self.packed.numpy()
        found = found[:, found[2] > -np.inf]
        return Candidates(found[0].astype(np.int64), found[1].astype(np.int64), found[2])


@torch.inference_mode()
def queue_continuations(
    logits: Tensor, logprobs: np.ndarray, count: int, masks: np.ndarray | None = None
) -> QueuedBest:
    """Choose the `count` best continuations of all branches, without waiting for the device.

    Args:
        logits: [branches, vocab], a floating dtype.
        logprobs: [branches] float64, cumulative log-probability of each branch, natural log.
        masks: [branches, W] int32 (structured/masks.py), the tokens that may come, if not all may;
            probabilities stay those among all tokens.
    """
    before = torch.from_numpy(logprobs)
    if logits.is_cuda:  # a copy from other memory would wait for the step
        before = before.pin_memory().to(logits.device, non_blocking=True)
    tokens = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    if masks is not None:
        tokens.masked_fill_(~allowed_tokens(masks, tokens.shape[1], tokens.device), -torch.inf)
    num_blocks = -(-tokens.shape[1] // BLOCK)
    if missing := num_blocks * BLOCK - tokens.shape[1]:
        tokens = pad(tokens, (0, missing), value=-torch.inf)
    blocks = tokens.view(-1, BLOCK)
    # float64: the host adds up so, and float32 sums of close branches would tie
    maxima = blocks.amax(dim=1).view(-1, num_blocks).double() + before[:, None]
    # in the order of their places, so that equal continuations are met in that order too
    chosen = _first(maxima.view(-1), count).sort().values
    branch = chosen // num_blocks
    sums = (blocks[chosen].double() + before[branch][:, None]).view(-1)
    best = _first(sums, count)
    block = best // BLOCK
    token = chosen[block] % num_blocks * BLOCK + best % BLOCK
    # int64 below 2 ** 53 are exact as float64, so that one copy brings all
    packed = torch.stack([branch[block].double(), token.double(), sums[best]])
    host = packed.to("cpu", non_blocking=True)  # into pinned memory
    arrived = torch.cuda.Event() if packed.is_cuda else None
    if arrived is not None:
        arrived.record()
    return QueuedBest(host, arrived, len(logits))


def merge(parts: list[Candidates], count: int) -> Candidates:
    """The best of several lists, each of other branches."""
    if len(parts) == 1:
        return parts[0]
    branch, token, logprob = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((token, branch, -logprob))[:count]
    return Candidates(branch[order], token[order], logprob[order])


def _first(values: Tensor, count: int) -> Tensor:
    """Places of the `count` largest values, largest first; of equal ones the first place."""
    if values.device.type != "cpu":
        return values.sort(descending=True, stable=True).indices[:count]
    # the device waits for nobody to count; a CPU has no fast sort
    least = values.topk(min(count, len(values))).values[-1]
    places = (values >= least).nonzero()[:, 0]
    return places[values[places].sort(descending=True, stable=True).indices[:count]]
