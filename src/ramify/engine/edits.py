"""Penalties, bias and bans of one draw as edits of single logits, for the device to apply.

An edited logit is rescale(logit) - minus + plus in float32, rescale(x) being x / scale above zero
and x * scale elsewhere: the order and the rounding of `sample` on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ramify.engine.sample import SampleRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEdits:
    """Edits of one draw, one entry per token, each token once."""

    token: np.ndarray  # [E] int32
    scale: np.ndarray  # [E] float32: repetition penalty, 1 is none
    minus: np.ndarray  # [E] float32: frequency and presence penalties
    plus: np.ndarray  # [E] float32: bias, -inf is a ban

    @classmethod
    def of(cls, row: SampleRow) -> TokenEdits:
        """The edits that a draw's parameters, bans and history ask for."""
        params, history = row.params, row.history
        generated = history.generated if history is not None else {}
        subtracts = params.frequency_penalty != 0.0 or params.presence_penalty != 0.0
        repeated = _ids(())
        if history is not None and params.repetition_penalty != 1.0:
            repeated = _ids(history.prompt | generated.keys())
        counted = _ids(generated if subtracts else ())
        biased, banned = _ids(params.logit_bias or ()), _ids(row.banned)
        # masks and counts work on a copy of the logits as edits do: an edit of nothing asks for one
        copied = _ids((0,) if _needs_copy(row) else ())
        token = np.unique(np.concatenate([repeated, counted, biased, banned, copied]))
        scale, minus, plus = np.ones(len(token), np.float32), *np.zeros((2, len(token)), np.float32)
        scale[np.searchsorted(token, repeated)] = params.repetition_penalty
        if len(counted):
            counts = np.fromiter(generated.values(), np.float32, len(counted))
            penalty = np.float32(params.frequency_penalty) * counts
            minus[np.searchsorted(token, counted)] = penalty + np.float32(params.presence_penalty)
        if params.logit_bias:
            plus[np.searchsorted(token, biased)] = list(params.logit_bias.values())
        plus[np.searchsorted(token, banned)] = -np.inf
        return cls(token=token, scale=scale, minus=minus, plus=plus)


def edit_bound(row: SampleRow) -> int:
    """At most how many tokens a draw edits; 0 where it edits none, has no mask and no history."""
    bound = len(row.banned) + len(row.params.logit_bias or ()) + _needs_copy(row)
    if row.history is not None and row.params.penalises:
        bound += len(row.history.prompt) + len(row.history.generated)
    return bound


def _needs_copy(row: SampleRow) -> bool:
    return row.mask is not None or row.history is not None


def _ids(tokens: Iterable[int]) -> np.ndarray:
    return np.array(list(tokens), dtype=np.int32)
