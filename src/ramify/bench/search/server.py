"""What a client of an HTTP server meets, without the sockets: JSON in, JSON out.

The fields are those of the completions that vLLM and others serve. The server is our own engine
with its prefix cache, and msgspec reads and writes the JSON: a resending client has no faster peer.
"""

from __future__ import annotations

import msgspec

from ramify import LLM, SamplingParams
from ramify.engine.request import Request
from ramify.engine.results import request_output
from ramify.search.sample import Sample


class CompletionBody(msgspec.Struct, kw_only=True):
    """Ask for `n` samples of a prompt, numbered from `first_sample` on."""

    prompt: str
    n: int
    max_tokens: int
    temperature: float
    seed: int
    first_sample: int = 0
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True


class Choice(msgspec.Struct, kw_only=True):
    """One sample."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float
    finish_reason: str | None
    stop_reason: str | int | None


class CompletionReply(msgspec.Struct, kw_only=True):
    """All samples of a request."""

    id: int
    choices: list[Choice]


_READ_BODY = msgspec.json.Decoder(CompletionBody)


class CompletionServer:
    """Serves completions from an LLM. The caller steps the engine between the two calls."""

    def __init__(self, llm: LLM) -> None:
        self._engine = llm.engine
        self.num_requests = 0
        self.computed_tokens = 0

    def post(self, body: bytes) -> Request:
        """Take a request in: read, tokenise, submit."""
        asked = _READ_BODY.decode(body)
        params = SamplingParams(
            n=asked.n,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            stop=asked.stop,
            include_stop_str_in_output=asked.include_stop_str_in_output,
            ignore_eos=asked.ignore_eos,
            skip_special_tokens=asked.skip_special_tokens,
        )
        ids = self._engine.live.codec.encode_prompt(asked.prompt)
        request = self._engine.submit(Sample(params), ids, prompt=asked.prompt, seed=asked.seed)
        # samples go on counting, so that a second request for one prompt draws other noise
        request.num_forks[request.tree.root] = asked.first_sample
        self.num_requests += 1
        return request

    def reply(self, request: Request) -> bytes:
        """The answer to a request that is done. Raises its error."""
        if request.error is not None:
            raise request.error
        self.computed_tokens += request.usage.computed_tokens
        choices = [
            Choice(
                index=output.index,
                text=output.text,
                token_ids=output.token_ids,
                cumulative_logprob=output.cumulative_logprob,
                finish_reason=output.finish_reason,
                stop_reason=output.stop_reason,
            )
            for output in request_output(request).outputs
        ]
        return msgspec.json.encode(CompletionReply(id=request.id, choices=choices))
