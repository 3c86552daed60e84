"""Turn logits into tokens: penalties, temperature, filters, Gumbel-max, log-probabilities.

A token is argmax(logit / temperature + noise) over the tokens that pass the filters, the noise a
pure function of (branch seed, position, token): equal logits give equal tokens whatever else is in
the batch. The order follows vLLM: bias and penalties, temperature, min-p, top-k, top-p.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramify.core.outputs import TokenLogprob
from ramify.core.params import SamplingParams
from ramify.core.seeds import gumbel_noise
from ramify.engine.structured.masks import allowed_tokens
from ramify.engine.structured.state import GrammarState

COLDEST = 1e-5
"""Temperatures below this are greedy: dividing by them would overflow."""


@dataclass(slots=True)
class History:
    """What penalties need of a path: the prompt's tokens and counts of the generated ones."""

    prompt: frozenset[int] = frozenset()
    generated: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class SampleRow:
    """One token to draw: which logits row, by which rules, with which noise."""

    row: int
    params: SamplingParams
    seed: int
    position: int  # absolute position of the token to draw
    banned: tuple[int, ...] = ()  # ids that may not come yet (min_tokens)
    history: History | None = None  # given when the parameters penalise
    grammar: GrammarState | None = None  # given when the output is structured
    mask: np.ndarray | None = None  # [W] int32, see structured/masks.py: tokens that may come


def sample(logits: Tensor, rows: Sequence[SampleRow]) -> list[TokenLogprob]:
    """Draw one token per row, on the device of the logits: a GPU draws the CPU's tokens.

    Args:
        logits: [n, vocab] float32, the model's own; on a GPU float16 or bfloat16 too.
        rows: what to draw; several rows may share one row of logits (the first tokens of siblings).
    Returns:
        One `TokenLogprob` per row; log-probabilities are those of the unmodified logits, with
        `params.logprobs` alternatives.
    """
    if logits.device.type == "cuda":
        # its kernels need triton, which comes with torch where there is a GPU
        from ramify.engine.device_sample import sample_on_device

        return sample_on_device(logits, rows)
    raw = logits[torch.tensor([r.row for r in rows])]
    adjusted = _filter(_adjust(raw, rows), rows)
    greedy = torch.tensor([r.params.temperature < COLDEST for r in rows])
    if not bool(greedy.all()):
        noise = gumbel_noise([r.seed for r in rows], [r.position for r in rows], raw.shape[1])
        adjusted = adjusted + torch.from_numpy(noise).masked_fill_(greedy[:, None], 0.0)
    tokens = adjusted.argmax(dim=-1)
    return token_logprobs(raw, tokens, [r.params.logprobs for r in rows])


def token_logprobs(logits: Tensor, tokens: Tensor, top: Sequence[int | None]) -> list[TokenLogprob]:
    """Log-probabilities of `tokens` [n] under `logits` [n, vocab], with alternatives."""
    tokens = tokens.to(logits.device)
    chosen = logits.gather(1, tokens[:, None])
    norm = logits.logsumexp(dim=-1, keepdim=True)
    ranks = (logits > chosen).sum(dim=-1) + 1
    best = top_logprobs(logits, max((k or 0 for k in top), default=0))
    columns = zip(
        tokens.tolist(), (chosen - norm)[:, 0].tolist(), ranks.tolist(), best, top, strict=True
    )
    return [
        TokenLogprob(token_id=token, logprob=logprob, rank=rank, top=alternatives[: k or 0])
        for token, logprob, rank, alternatives, k in columns
    ]


def top_logprobs(
    logits: Tensor, k: int, masks: np.ndarray | None = None
) -> list[tuple[tuple[int, float], ...]]:
    """The k most probable tokens of each row of `logits` [n, vocab], natural log.

    With masks [n, W] int32 (structured/masks.py), tokens left out have -inf.
    """
    if k == 0:
        return [()] * logits.shape[0]
    logprobs = logits.log_softmax(dim=-1)
    if masks is not None:
        allowed = allowed_tokens(masks, logits.shape[1], logits.device)
        logprobs = logprobs.masked_fill(~allowed, -torch.inf)
    values, ids = logprobs.topk(min(k, logits.shape[1]), dim=-1)
    return [
        tuple(zip(row_ids, row_values, strict=True))
        for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _adjust(raw: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """Apply what names single tokens: penalties, bias, bans, masks; then divide by temperature."""
    out = raw.clone()
    _mask(out, rows)
    for i, row in enumerate(rows):
        params = row.params
        if row.history is not None:
            _penalise(out[i], params, row.history)
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias))
            out[i, ids] += torch.tensor(list(params.logit_bias.values()), dtype=out.dtype)
        if row.banned:
            out[i, list(row.banned)] = -torch.inf
    warm = [t if t >= COLDEST else 1.0 for t in (r.params.temperature for r in rows)]
    temperature = torch.tensor(warm)
    return out / temperature[:, None]


def _mask(logits: Tensor, rows: Sequence[SampleRow]) -> None:
    """Exclude what grammars refuse."""
    masks = {i: row.mask for i, row in enumerate(rows) if row.mask is not None}
    if masks:
        allowed = allowed_tokens(np.stack(list(masks.values())), logits.shape[1], logits.device)
        index = torch.tensor(list(masks))
        logits[index] = logits[index].masked_fill(~allowed, -torch.inf)


def _penalise(logits: Tensor, params: SamplingParams, history: History) -> None:
    """Repetition counts prompt and output (CTRL, Keskar et al. 2019); the others output alone."""
    seen = torch.tensor(sorted(history.prompt | history.generated.keys()), dtype=torch.long)
    if params.repetition_penalty != 1.0 and seen.numel():
        values, penalty = logits[seen], params.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if history.generated:
        ids = torch.tensor(list(history.generated), dtype=torch.long)
        counts = torch.tensor(list(history.generated.values()), dtype=logits.dtype)
        logits[ids] -= params.frequency_penalty * counts + params.presence_penalty


def _filter(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """Mask with -inf what top-k, top-p and min-p exclude, each only on the rows that ask."""
    for mask_rows, apply in (
        ([i for i, r in enumerate(rows) if r.params.min_p > 0.0], _keep_min_p),
        ([i for i, r in enumerate(rows) if r.params.top_k], _keep_top_k),
        ([i for i, r in enumerate(rows) if r.params.top_p < 1.0], _keep_top_p),
    ):
        if mask_rows:
            index = torch.tensor(mask_rows)
            logits[index] = apply(logits[index], [rows[i].params for i in mask_rows])
    return logits


def _keep_top_k(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    k = torch.tensor([min(p.top_k, logits.shape[1]) for p in params])
    ordered = logits.topk(int(k.max()), dim=-1).values
    return logits.masked_fill(logits < ordered.gather(1, k[:, None] - 1), -torch.inf)


def _keep_top_p(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    ordered, ids = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    limit = torch.tensor([p.top_p for p in params])[:, None]
    # a token stays while the mass before it is under the limit, so the first always stays
    drop = (ordered.cumsum(dim=-1) - ordered) >= limit
    return logits.masked_fill(drop.scatter(1, ids, drop), -torch.inf)


def _keep_min_p(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    probs = logits.softmax(dim=-1)
    floor = torch.tensor([p.min_p for p in params])[:, None] * probs.amax(dim=-1, keepdim=True)
    return logits.masked_fill(probs < floor, -torch.inf)
