"""Results as they grow: an iterator over the states of one request."""

from __future__ import annotations

from collections.abc import Iterator

from ramify.core.errors import RequestAborted
from ramify.core.outputs import RequestOutput
from ramify.engine.engine import Engine
from ramify.engine.request import Request
from ramify.engine.results import request_output


class Stream(Iterator[RequestOutput]):
    """Yields the request whenever a token came, each time with all its text so far.

    Every step it takes moves all requests of the engine. `abort` ends it early: the next item is
    the last one, with what was generated until then.
    """

    def __init__(self, engine: Engine, request: Request, stops: tuple[str, ...]) -> None:
        self._engine = engine
        self._request = request
        self._stops = stops
        self._seen = 0
        self._is_over = False

    @property
    def request_id(self) -> int:
        """The engine's number for this request."""
        return self._request.id

    def abort(self) -> None:
        """End the request; its branches are freed at the engine's next step."""
        self._engine.abort(self._request)

    def __next__(self) -> RequestOutput:
        if self._is_over:
            raise StopIteration
        while not self._request.is_done and self._seen == self._request.tree.generated_tokens:
            self._engine.step(is_watched=True)
        self._seen = self._request.tree.generated_tokens
        self._is_over = self._request.is_done
        output = request_output(self._request, stops=self._stops)
        if isinstance(self._request.error, RequestAborted):
            for branch in output.outputs:
                if branch.finish_reason == "error":
                    branch.finish_reason = "abort"
        return output
