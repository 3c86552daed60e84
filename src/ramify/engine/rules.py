"""By what rules branches are sampled and end: limits, stop tokens, penalties, grammars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.core.params import SamplingParams
from ramify.core.structured import StructuredOutput
from ramify.engine.codec import Codec
from ramify.engine.request import Request
from ramify.engine.sample import History
from ramify.engine.structured.compile import Grammars
from ramify.engine.structured.path import state_at
from ramify.engine.structured.state import GrammarState


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a model and a pool allow."""

    max_context: int
    num_slots: int
    eos_token_ids: tuple[int, ...]


class Rules:
    """What the parameters of a request mean for this model."""

    def __init__(self, codec: Codec, limits: Limits) -> None:
        self.grammars = Grammars(codec)
        self._codec = codec
        self._limits = limits
        self._text_of: dict[int, str] = {}

    def check_params(self, params: SamplingParams) -> None:
        """Raise InputError when parameters do not fit the model."""
        params.check_vocabulary(self._codec.vocab_size)
        if params.stop_strings:
            self._codec.require_text("stop strings")
        if params.structured is not None:
            self.grammars.start(params.structured)

    def history(self, request: Request, node: int, params: SamplingParams) -> History | None:
        """What penalties need to know of the path to `node`; None when nothing is penalised."""
        if not params.penalises:
            return None
        history = History(prompt=request.prompt_set)
        history.generated.update(request.tree.completion_ids(node))
        return history

    def grammar(
        self,
        request: Request,
        node: int,
        structured: StructuredOutput | None,
        *,
        may_restart: bool = True,
    ) -> GrammarState | None:
        """Where a grammar is behind a node's path (see `state_at`); None without a grammar."""
        if structured is None:
            return None
        start = self.grammars.start(structured)
        return state_at(request.tree.path(node), structured, start, may_restart=may_restart)

    def masks(self, states: Sequence[GrammarState]) -> np.ndarray:
        """Masks [n, W] int32 of what may follow, the model's end of text where a text may end."""
        ends = [self._limits.eos_token_ids] * len(states)
        return self.grammars.masks.with_ends(states, ends)

    def stop_ids(self, params: SamplingParams) -> tuple[int, ...]:
        """Tokens that end a branch; until `min_tokens` are there, none of them may be drawn."""
        eos = () if params.ignore_eos else self._limits.eos_token_ids
        return (*eos, *params.stop_token_ids)

    def text_of(self, token: int) -> str:
        """The text of one token; special tokens have none."""
        if token not in self._text_of:
            self._text_of[token] = self._codec.decode((token,), skip_special_tokens=True)
        return self._text_of[token]
