"""What callers of `LLM` give: prompts and parameters, checked before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ramify.core.errors import InputError, expected_got
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.engine.codec import Codec
from ramify.engine.engine import Engine

Prompt: TypeAlias = str | Sequence[int]
Prompts: TypeAlias = Prompt | Sequence[Prompt]


def prompts_of(codec: Codec, prompts: Prompts) -> list[tuple[str | None, list[int]]]:
    """Text (if given as text) and token ids of one prompt or several. Raises InputError."""
    is_one = isinstance(prompts, str) or (
        isinstance(prompts, Sequence) and bool(prompts) and isinstance(prompts[0], int)
    )
    many = [prompts] if is_one else prompts
    if not isinstance(many, Sequence) or not many:
        wanted = "a text, a list of token ids, or a non-empty list of either"
        raise InputError(expected_got("prompt", wanted, repr(prompts)))
    return [
        (one if isinstance(one, str) else None, codec.encode_prompt(one))  # type: ignore[arg-type]
        for one in many
    ]


def params_for(
    count: int, params: SamplingParams | Sequence[SamplingParams] | None
) -> list[SamplingParams]:
    """Those of each of `count` prompts. Raises InputError."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    every = list(params) if isinstance(params, Sequence) else [params]
    for one in every:
        if not isinstance(one, SamplingParams):
            got = type(one).__name__
            raise InputError(expected_got("params", f"SamplingParams, one or {count}", got))
    if len(every) != count:
        raise InputError(expected_got("params", f"one or {count}", len(every)))
    return every


def check_sampling(engine: Engine, ids: Sequence[int], params: SamplingParams) -> None:
    """Raise InputError unless the engine can sample so from a prompt."""
    engine.live.rules.check_params(params)
    check_branches(engine, len(ids), params.n)


def check_branches(engine: Engine, prompt_tokens: int, branches: int) -> None:
    """Raise InputError unless the prompt and a token of every branch fit the pool."""
    engine.check_fits(prompt_tokens)
    slots = engine.limits.num_slots
    if prompt_tokens + branches > slots:
        wanted = f"at most {slots - prompt_tokens} beside a prompt of {prompt_tokens} tokens"
        got = f"{branches} (the KV pool has {slots} slots)"
        raise InputError(expected_got("branches", wanted, got))


def check_beams(engine: Engine, params: BeamSearchParams) -> None:
    """Raise InputError unless beams can be structured as they shall."""
    if params.structured is None:
        return
    if not engine.limits.eos_token_ids:
        wanted = "a model with an end-of-text token, with which a beam says that it is complete"
        raise InputError(expected_got("structured", wanted, "none"))
    engine.live.rules.grammars.start(params.structured)
