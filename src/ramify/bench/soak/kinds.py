"""The kinds of jobs that a round is made of, and how often each comes."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from ramify.bench.soak.draws import Draws
from ramify.bench.soak.jobs import Batch, Beams, Job, Streamed, Submitted
from ramify.core.errors import OutOfSlots
from ramify.core.params import SamplingParams
from ramify.search import BestOfN, Budget, Sample, TreeOfThoughts, Value

Make: TypeAlias = Callable[[Draws], Job]

OUTGROWING = 24
"""Tokens a request asks for whose prompt leaves the pool at most half as many."""


class ScorerFailed(Exception):
    """Raised by a scorer on purpose."""


def sampled(draws: Draws) -> Job:
    """Plain requests: streamed and watched, streamed and forgotten."""
    prompt = draws.prompt()
    params = draws.params(draws.room(prompt), prompt_logprobs=draws.pick([None, None, 0, 2]))
    patience = draws.pick([None, None, 0, draws.count(1, 5)])
    return Streamed(prompt, params, patience)


def batch(draws: Draws) -> Job:
    """A blocking call."""
    prompts = [draws.prompt() for _ in range(draws.count(1, 4))]
    return Batch(prompts, [draws.params(draws.room(prompt)) for prompt in prompts])


def beams(draws: Draws, eos: tuple[int, ...]) -> Job:
    """A beam search."""
    prompt = draws.prompt()
    return Beams(prompt, draws.beam_params(draws.room(prompt)), eos)


def best_of_n(draws: Draws) -> Job:
    """Samples that are ranked by a scorer or by their votes, some within a budget."""
    prompt = draws.prompt()
    params = draws.params(draws.room(prompt))
    budget = draws.pick([None, None, Budget(nodes=2 * params.n)])
    if draws.chance(0.5):
        search = BestOfN(params, scorer=_score, budget=budget)
        return Submitted("best_of_n", search, prompt, params)
    search = BestOfN(params, select="majority", answer=len, budget=budget)
    return Submitted("self_consistency", search, prompt, params)


def thoughts(draws: Draws) -> Job:
    """A tree of thoughts, with and without backtracking."""
    prompt, depth = draws.prompt(), draws.count(1, 4)
    params = draws.node_params(max(draws.room(prompt) // depth, 1))
    numbers = itertools.count()
    search = TreeOfThoughts(
        params,
        k=draws.count(1, 3),
        width=draws.count(1, 3),
        depth=depth,
        scorer=_verdict if draws.chance(0.7) else None,
        budget=Budget(nodes=draws.count(4, 24)) if draws.chance(0.5) else None,
        backtrack=draws.chance(0.5),
        # without a tokenizer all texts are equal, and would be copies
        state=None if draws.has_text else lambda text: next(numbers),
        heat=0.0,
    )
    return Submitted("tot", search, prompt, params)


def failing(draws: Draws) -> Job:
    """A search whose scorer raises when the first sample ends."""
    prompt = draws.prompt()
    params = draws.params(draws.room(prompt))
    search = BestOfN(params, scorer=_fail)
    return Submitted("failing scorer", search, prompt, params, expects=ScorerFailed)


def outgrowing(draws: Draws) -> Job:
    """A request whose one branch the pool cannot hold."""
    prompt = draws.tokens(draws.num_slots - draws.count(1, OUTGROWING // 2))
    params = SamplingParams(max_tokens=OUTGROWING, ignore_eos=True, seed=draws.seed())
    return Submitted("outgrowing", Sample(params), prompt, params, expects=OutOfSlots)


def _score(prompt: str, completion: str) -> float:
    return (zlib.crc32(completion.encode()) % 100) / 100


def _verdict(prompt: str, completion: str) -> Value:
    score = _score(prompt, completion)
    return Value(score=score, prune=score < 0.1, solved=score > 0.95)


def _fail(prompt: str, completion: str) -> float:
    raise ScorerFailed


def kinds(draws: Draws, eos: tuple[int, ...]) -> Iterator[tuple[float, Make]]:
    """How often each kind comes, and how to make one."""
    yield 6.0, sampled
    yield 1.0, batch
    yield 2.0, lambda d: beams(d, eos)
    yield 2.0, best_of_n
    yield 2.0, thoughts
    yield 0.5, failing
    if draws.max_context > draws.num_slots + OUTGROWING:
        yield 0.3, outgrowing
