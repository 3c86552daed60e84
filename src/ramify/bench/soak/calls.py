"""Calls that must fail, each with its own error and nothing left behind, and calls that ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ramify import LLM
from ramify.bench.soak.branch import Branch, check_logprob
from ramify.bench.soak.draws import Draws
from ramify.bench.soak.jobs import Job
from ramify.bench.soak.tally import Tally
from ramify.core.errors import InputError, IntegrityError, expected_got
from ramify.core.params import BeamSearchParams, SamplingParams


class Interrupted(Exception):
    """Raised in the middle of a search on purpose, as Ctrl-C would be."""


class Call(Job):
    """A blocking call that returns nothing to keep; with `raises` it must fail so."""

    def __init__(
        self, kind: str, call: Callable[[LLM], object], raises: type[Exception] | None = None
    ) -> None:
        self.kind = kind
        self._call, self._raises = call, raises
        self._is_over = False

    def start(self, llm: LLM) -> None:
        self._is_over = True
        try:
            self._call(llm)
        except Exception as error:
            is_typed = self._raises is not None and type(error) is self._raises
            if not is_typed or (self._raises is InputError and "expected" not in str(error)):
                raise
            return
        if self._raises is not None:
            raise IntegrityError(expected_got(self.kind, self._raises.__name__, "no error"))

    @property
    def is_over(self) -> bool:
        return self._is_over

    def check(self, tally: Tally) -> list[Branch]:
        if self._raises is not None:
            tally.errors[self._raises.__name__] += 1
        return []


def misuse(draws: Draws) -> Job:
    """One of the ways to ask for what cannot be."""
    prompt, vocab = draws.prompt(), draws.vocab_size
    plain = SamplingParams(max_tokens=2)
    too_long = draws.tokens(min(draws.num_slots, draws.max_context))
    ways: list[Callable[[LLM], object]] = [
        lambda llm: llm.generate([prompt, too_long], plain),
        lambda llm: llm.generate([prompt, []], plain),
        lambda llm: llm.generate([prompt, [vocab]], plain),
        lambda llm: llm.generate([prompt, [-1]], plain),
        lambda llm: llm.generate([prompt], SamplingParams(stop_token_ids=[vocab])),
        lambda llm: llm.generate([prompt], SamplingParams(logprobs=vocab + 1)),
        lambda llm: llm.generate([prompt], SamplingParams(logit_bias={vocab: 1.0})),
        lambda llm: llm.generate([prompt], SamplingParams(n=draws.num_slots)),
        lambda llm: llm.generate([prompt], SamplingParams(temperature=float("nan"))),
        lambda llm: llm.generate([prompt], SamplingParams(max_tokens=0)),
        lambda llm: llm.beam_search([prompt], BeamSearchParams(beam_width=draws.num_slots)),
        lambda llm: llm.score(prompt, [[]]),
        lambda llm: llm.score(prompt, [[1] * draws.max_context]),
        lambda llm: llm.search(prompt, "no such algorithm"),
        lambda llm: llm.search(prompt, "best_of_n", params=plain),
        lambda llm: _misuse_tree(llm, prompt, lambda root: root.append([vocab])),
        lambda llm: _misuse_tree(llm, prompt, lambda root: root.append([1] * draws.max_context)),
        lambda llm: _misuse_tree(llm, prompt, lambda root: root.fork(len(prompt) - 1)),
        lambda llm: _misuse_tree(llm, prompt, lambda root: root.expand(0, plain)),
    ]
    return Call("misuse", draws.pick(ways), InputError)


def scores(draws: Draws) -> Job:
    """Continuations of one prompt, some of them equal."""
    prompt = draws.prompt()
    room = max(draws.room(prompt), 1)
    given = [draws.tokens(draws.count(1, room)) for _ in range(draws.count(1, 4))]
    top = draws.pick([0, 2])

    def call(llm: LLM) -> None:
        for output in llm.score(prompt, [*given, given[0]], logprobs=top):
            check_logprob(output.logprob)

    return Call("score", call)


def interrupted(draws: Draws) -> Job:
    """A search whose watcher raises after some steps."""
    prompt = draws.prompt()
    most, seed = max(draws.room(prompt), 2), draws.seed()
    params = SamplingParams(n=draws.count(1, 6), max_tokens=most, ignore_eos=True, seed=seed)
    steps = iter(range(draws.count(0, params.max_tokens // 2)))

    def look(tree: Any) -> None:
        if next(steps, None) is None:
            raise Interrupted

    def call(llm: LLM) -> None:
        llm.search(prompt, "sample", params=params, on_step=look)

    return Call("interrupted", call, Interrupted)


def _misuse_tree(llm: LLM, prompt: list[int], use: Callable[[Any], object]) -> None:
    root = llm.tree(prompt)
    try:
        use(root)
    finally:
        root.finish()
