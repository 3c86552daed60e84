"""A scorer behind an HTTP endpoint: a reward model that is served elsewhere.

The request is a POST with the JSON body `{"prompt": text, "completions": [text, ...]}`; the answer
is `{"scores": [number, ...]}`, one for each completion in order.
"""

from __future__ import annotations

import http.client
import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ramify.core.errors import InputError, ScorerError, expected_got

MAX_BODY = 64 << 20
"""Bytes of an answer that are read; no list of scores is longer."""


@dataclass(frozen=True, kw_only=True)
class HttpScorer:
    """Asks an endpoint for the scores of all texts that ended in one step.

    The engine waits for the answer, so its time is part of the search's. Nothing is tried twice.

    Attributes:
        url: http or https.
        timeout_s: of connecting and of each read, in seconds.
        headers: sent with every request, for instance an authorisation.
    Raises:
        InputError: the url or the timeout is malformed.
        ScorerError: from a call: no answer in time, an error status, or not the scores asked for.
    """

    url: str
    timeout_s: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(expected_got("url", "http://... or https://...", repr(self.url)))
        if not 0.0 < self.timeout_s < math.inf:
            raise InputError(expected_got("timeout_s", "a number > 0", self.timeout_s))

    def score_batch(self, prompt: str, completions: Sequence[str]) -> list[float]:
        """The endpoint's score of each completion."""
        body = json.dumps({"prompt": prompt, "completions": list(completions)}).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                content = answer.read(MAX_BODY)
        except urllib.error.HTTPError as error:
            with error:
                got = f"status {error.code} ({error.reason})"
            raise ScorerError(expected_got(self.url, "status 200", got)) from None
        except (OSError, http.client.HTTPException) as error:
            raise ScorerError(expected_got(self.url, "an answer", _reason(error))) from error
        return self._scores(content, len(completions))

    def _scores(self, content: bytes, count: int) -> list[float]:
        try:
            document = json.loads(content)
        except ValueError as error:  # neither JSON nor text
            raise ScorerError(expected_got(self.url, "JSON", f"{content[:60]!r}")) from error
        scores = document.get("scores") if isinstance(document, dict) else None
        if not isinstance(scores, list) or len(scores) != count:
            got = f"{len(scores)} of them" if isinstance(scores, list) else f"{content[:60]!r}"
            raise ScorerError(expected_got(self.url, f"{count} scores", got))
        for score in scores:
            is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
            if not is_number or not math.isfinite(score):
                raise ScorerError(expected_got(self.url, "finite scores", repr(score)))
        return [float(score) for score in scores]


def _reason(error: Exception) -> str:
    """What went wrong, in words; urllib wraps the system's error."""
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {reason}"
