"""One branch decoded step by step by the engine's own way, with a drafter or without, and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from ramify import LLM, SamplingParams
from ramify.bench.timer import median_of
from ramify.core.forest import Forest
from ramify.engine.request import Request
from ramify.search.sample import Sample

HOT = 1e5
"""So hot that noise alone decides, whatever the last bits of logits are."""
WARM_UP_STEPS = 4
"""Not timed: kernels are compiled, graphs are captured."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One branch. Times are those of the steps after the warm-up and before the last."""

    path: list[int]  # prompt and tokens
    step_s: list[float]
    tokens_per_step: float  # of steps that verified a draft; 1.0 without
    largest: Forest  # of the step of most rows

    @property
    def step_ms(self) -> float:
        """The median step."""
        return median_of(self.step_s) * 1e3

    @property
    def tok_per_s(self) -> float:
        """Tokens per second at the median step."""
        return self.tokens_per_step / self.step_ms * 1e3


def decode(llm: LLM, prompt: Sequence[int], *, new_tokens: int, seed: int) -> Decoded:
    """Decode `new_tokens` behind a prompt. Raises what the engine raises of the request."""
    largest: list[Forest] = []

    def look() -> None:
        assert llm.engine.last_batch is not None, "a step of a live request has rows"
        forest = llm.engine.last_batch.forest
        if not largest or forest.num_rows > largest[0].num_rows:
            largest[:] = [forest]

    request, step_s = _timed(llm, prompt, hot(new_tokens, seed), seed, look)
    assert largest, "more than one token was asked for"
    return Decoded(
        path=[*prompt, *request.tree.completion_ids(request.tree[request.tree.root].children[0])],
        step_s=step_s,
        tokens_per_step=request.usage.tokens_per_verified_step,
        largest=largest[0],
    )


def branches_step_ms(llm: LLM, num_branches: int, *, steps: int, seed: int) -> float:
    """The median step of so many branches of a short prompt, decoded without drafts."""
    params = hot(steps + WARM_UP_STEPS + 2, seed, num_branches)
    _, step_s = _timed(llm, list(range(2, 10)), params, seed)
    return median_of(step_s) * 1e3


def hot(new_tokens: int, seed: int, num_branches: int = 1) -> SamplingParams:
    """Rules by which plain decoding and verification draw the same tokens in every dtype."""
    return SamplingParams(
        n=num_branches, temperature=HOT, max_tokens=new_tokens, ignore_eos=True, seed=seed
    )


def _timed(
    llm: LLM,
    prompt: Sequence[int],
    params: SamplingParams,
    seed: int,
    look: Callable[[], None] = lambda: None,
) -> tuple[Request, list[float]]:
    """A request that is over, and the seconds of its steps behind the warm-up, but for the last.

    Args:
        look: called after every step behind the prompt's, outside of what is timed.
    """
    engine = llm.engine
    request = engine.submit(Sample(params), prompt, seed=seed)
    while len(request.tree) == 1 and not request.is_done:
        engine.step()
    step_s: list[float] = []
    while not request.is_done:
        begin = perf_counter()
        engine.step()
        step_s.append(perf_counter() - begin)
        look()
    if request.error is not None:
        raise request.error
    return request, step_s[WARM_UP_STEPS:-1] or step_s
