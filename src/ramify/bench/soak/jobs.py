"""What runs side by side: requests that start, go on while others do, and end or are cut short."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ramify import LLM
from ramify.bench.soak.branch import Branch, branches_of, branches_of_output, check_usage
from ramify.bench.soak.tally import Tally
from ramify.core.errors import IntegrityError, RequestAborted, expected_got
from ramify.core.outputs import RequestOutput
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.engine import Stream
from ramify.engine.request import Request
from ramify.search import BeamSearch, Controller, Sample


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
        self._outputs: list[RequestOutput] | None = None

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
