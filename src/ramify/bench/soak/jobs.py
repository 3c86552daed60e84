"""What runs side by side: requests that start, go on while others do, and end or are cut short.

A job is drawn whole before it starts, so that a round can be repeated from its number.
"""

from __future__ import annotations

import itertools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ramify import LLM
from ramify.bench.soak.branch import Branch, branches_of, branches_of_output, check_usage
from ramify.bench.soak.draws import Draws
from ramify.bench.soak.tally import Tally
from ramify.core.errors import IntegrityError, OutOfSlots, RequestAborted, expected_got
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.engine import Stream
from ramify.engine.request import Request
from ramify.search import BeamSearch, BestOfN, Budget, Controller, Sample, TreeOfThoughts, Value

OUTGROWING = 24
"""Tokens a request asks for whose prompt leaves the pool at most half as many."""


class ScorerFailed(Exception):
    """Raised by a scorer on purpose."""


class Job(ABC):
    """One user of the engine.

    Attributes:
        kind: how reports name it.
        is_aborted: somebody has asked to end it early.
    """

    kind: str
    is_aborted: bool = False

    @abstractmethod
    def start(self, llm: LLM) -> None:
        """Submit what there is to submit."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether nothing more will come."""

    @property
    def request_id(self) -> int | None:
        """The request that may be aborted, if there is one."""
        return None

    def go_on(self) -> None:  # noqa: B027 most users have submitted all they want
        """Do the next thing that this user wants, if there is one."""

    @abstractmethod
    def check(self, tally: Tally) -> list[Branch]:
        """Count what it has cost; returns its finished branches. Raises IntegrityError."""

    def beams(self) -> tuple[list[int], BeamSearchParams, list[tuple[list[int], float]]] | None:
        """Prompt, parameters and (tokens, log-probability) of the beams, if it was such a search"""
        return None


class Submitted(Job):
    """A controller that grows its tree without its user."""

    def __init__(
        self,
        kind: str,
        controller: Controller,
        prompt: list[int],
        params: SamplingParams,
        *,
        expects: type[Exception] | None = None,
    ) -> None:
        self.kind = kind
        self._controller = controller
        self._prompt = prompt
        self._params = params
        self._expects = expects
        self._request: Request | None = None

    def start(self, llm: LLM) -> None:
        self._request = llm.engine.submit(
            self._controller,
            self._prompt,
            seed=self._params.seed,
            prompt_logprobs=self._params.prompt_logprobs,
        )

    @property
    def request(self) -> Request:
        """Its request, once it has started."""
        assert self._request is not None, "a job is used after its start"
        return self._request

    @property
    def is_over(self) -> bool:
        return self.request.is_done

    @property
    def request_id(self) -> int | None:
        return self.request.id

    def check(self, tally: Tally) -> list[Branch]:
        request = self.request
        check_ending(self.kind, request.error, self._expects, is_aborted=self.is_aborted)
        tally.count(request.usage)
        if request.error is not None:
            tally.errors[type(request.error).__name__] += 1
        check_usage(request.usage, len(self._prompt))
        sampled = sum(len(node.token_ids) for node in request.tree if node.parent is not None)
        if sampled != request.usage.generated_tokens:
            raise IntegrityError(
                expected_got("generated_tokens", sampled, request.usage.generated_tokens)
            )
        self._check_prompt_logprobs()
        return list(branches_of(request, self._params))

    def _check_prompt_logprobs(self) -> None:
        found = self.request.prompt_logprobs
        if self._params.prompt_logprobs is None or self.request.error is not None:
            return
        if found is None or [t.token_id for t in found] != self._prompt[1:]:
            raise IntegrityError(expected_got("prompt_logprobs", self._prompt[1:], found))


class Streamed(Submitted):
    """Samples that somebody watches, perhaps not to the end."""

    def __init__(self, prompt: list[int], params: SamplingParams, patience: int | None) -> None:
        super().__init__("stream", Sample(params), prompt, params)
        self._patience = patience
        self._stream: Stream | None = None
        self._num_seen = 0

    def start(self, llm: LLM) -> None:
        super().start(llm)
        self._stream = Stream(llm.engine, self.request, self._params.stop_strings)

    def go_on(self) -> None:
        """Take the next item; without patience left the request runs on unwatched."""
        is_bored = self._patience is not None and self._num_seen >= self._patience
        if is_bored or self._stream is None:
            return
        output = next(self._stream, None)
        self._num_seen += 1
        if output is None or output.finished:
            self._stream = None


class Beams(Submitted):
    """A beam search beside others."""

    def __init__(self, prompt: list[int], params: BeamSearchParams, eos: tuple[int, ...]) -> None:
        self._beam_params = params
        self._search = BeamSearch(params, eos)
        super().__init__("beam", self._search, prompt, SamplingParams(seed=0))

    def check(self, tally: Tally) -> list[Branch]:
        check_ending(self.kind, self.request.error, None, is_aborted=self.is_aborted)
        tally.count(self.request.usage)
        tally.generated_tokens += sum(
            len(node.token_ids) for node in self.request.tree if node.parent is not None
        )
        if self.request.error is not None:
            tally.errors[type(self.request.error).__name__] += 1
        return []

    def beams(self) -> tuple[list[int], BeamSearchParams, list[tuple[list[int], float]]] | None:
        finish, tree = self.request.finish, self.request.tree
        if finish is None:
            return None
        made = self._search.hypotheses
        found = [(tree.completion_ids(n), made[n].cumulative_logprob) for n in finish.outputs]
        return self._prompt, self._beam_params, found


class Batch(Job):
    """Several prompts in one call, which moves everybody else until they are done."""

    kind = "generate"

    def __init__(self, prompts: list[list[int]], params: list[SamplingParams]) -> None:
        self._prompts, self._params = prompts, params
        self._outputs: list[Any] | None = None

    def start(self, llm: LLM) -> None:
        self._outputs = llm.generate(self._prompts, self._params)

    @property
    def is_over(self) -> bool:
        return self._outputs is not None

    def check(self, tally: Tally) -> list[Branch]:
        branches: list[Branch] = []
        for output, params in zip(self._outputs or (), self._params, strict=True):
            if output.error is not None:
                raise IntegrityError(expected_got("error of a request", None, output.error))
            check_usage(output.usage, len(output.prompt_token_ids))
            tally.count(output.usage)
            branches += branches_of_output(output, params)
        return branches


def check_ending(
    kind: str, error: Exception | None, expects: type[Exception] | None, *, is_aborted: bool
) -> None:
    """Raise IntegrityError unless a request ended as it had to."""
    if is_aborted and isinstance(error, RequestAborted):
        return
    if expects is None:
        is_right = error is None
    else:
        # who aborts may come too late, but nothing else may happen
        is_right = isinstance(error, expects)
    if not is_right:
        wanted = "no error" if expects is None else expects.__name__
        raise IntegrityError(expected_got(f"end of a {kind} request", wanted, repr(error)))


# ── making them ──────────────────────────────────────────────────────────────────────────────────
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


def kinds(draws: Draws, eos: tuple[int, ...]) -> Iterator[tuple[float, Any]]:
    """How often each kind comes, and how to make one."""
    yield 6.0, sampled
    yield 1.0, batch
    yield 2.0, lambda d: beams(d, eos)
    yield 2.0, best_of_n
    yield 2.0, thoughts
    yield 0.5, failing
    if draws.max_context > draws.num_slots + OUTGROWING:
        yield 0.3, outgrowing
