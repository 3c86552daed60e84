"""Finished branches again, alone: the same tokens, and log-probabilities that agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ramify import LLM
from ramify.bench.soak.branch import Branch
from ramify.bench.soak.tally import Tally
from ramify.core.errors import IntegrityError, expected_got
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.engine.sample import History, SampleRow, sample

TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}
"""How far log-probabilities of one token may differ, by the dtype they were computed in.

A step's shape decides in which order a product is summed up. Two tokens whose scores differ by less
than that are a near tie: which of them is drawn, may differ too.
"""


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """Runs branches again in an engine that has nothing else to do. Raises IntegrityError."""

    llm: LLM
    tally: Tally
    tolerance: float

    def branch(self, branch: Branch) -> None:
        """The branch by itself, then the log-probabilities of its path."""
        self._tokens(branch)
        self._logprobs(branch)
        self.tally.rechecked_branches += 1
        self.tally.rechecked_tokens += len(branch.token_ids)

    def beams(
        self,
        prompt: Sequence[int],
        params: BeamSearchParams,
        beams: Sequence[tuple[list[int], float]],
    ) -> None:
        """A beam search by itself; of beams that are as good, others may come."""
        (output,) = self.llm.beam_search([prompt], params)
        if output.error is not None:
            raise IntegrityError(expected_got("error of a beam search alone", None, output.error))
        again = [(one.token_ids, one.cumulative_logprob) for one in output.outputs]
        if [tokens for tokens, _ in again] != [tokens for tokens, _ in beams]:
            far = [
                abs(a - b) > self.tolerance * max(len(x), len(y))
                for (x, a), (y, b) in zip(again, beams, strict=True)
            ]
            if any(far):
                raise IntegrityError(expected_got("beams alone", beams, again))
            self.tally.near_ties += 1
        for tokens, logprob in beams:
            self._compare(prompt, tokens, logprob)
        self.tally.rechecked_beams += 1

    # ── the same tokens ──────────────────────────────────────────────────────────────────────────
    def _tokens(self, branch: Branch) -> None:
        (output,) = self.llm.generate([branch.prefix], branch.params)
        if output.error is not None:
            raise IntegrityError(expected_got("error of a branch alone", None, output.error))
        alone = output.outputs[0]
        if list(alone.token_ids) == list(branch.token_ids):
            ending = (alone.finish_reason, alone.stop_reason, alone.text)
            if ending != branch.ending:
                raise IntegrityError(expected_got("end of a branch alone", branch.ending, ending))
            return
        pairs = zip(alone.token_ids, branch.token_ids, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if at is None or not self._is_near_tie(branch, at):
            got = f"{alone.token_ids} ({branch}, first at {at})"
            raise IntegrityError(expected_got("tokens of a branch alone", branch.token_ids, got))
        self.tally.near_ties += 1

    def _is_near_tie(self, branch: Branch, at: int) -> bool:
        """Whether logits that are a little different give the token that the branch drew."""
        path = [*branch.prefix, *branch.token_ids[:at]]
        vocab_size = self.llm.engine.live.codec.vocab_size
        greedy = SamplingParams(max_tokens=1, temperature=0.0, logprobs=vocab_size)
        (output,) = self.llm.generate([path], greedy)
        reported = output.outputs[0].logprobs
        assert reported is not None, "log-probabilities were asked for"
        logits = torch.empty(1, vocab_size)
        for token, logprob in reported[0].top:
            logits[0, token] = logprob
        if branch.params.repetition_penalty != 1.0:
            return False  # it goes by the sign of a logit, which log-probabilities do not tell
        drawn = branch.token_ids[at]
        logits[0, drawn] += 2 * self.tolerance
        row = SampleRow(
            row=0,
            params=replace(branch.params, logprobs=None),
            seed=branch.params.seed or 0,
            position=len(path),
            banned=self._banned(branch.params) if at < branch.params.min_tokens else (),
            history=_history(branch, at),
        )
        return sample(logits, [row])[0].token_id == drawn

    def _banned(self, params: SamplingParams) -> tuple[int, ...]:
        eos = () if params.ignore_eos else self.llm.engine.limits.eos_token_ids
        return (*eos, *params.stop_token_ids)

    # ── the same log-probabilities ───────────────────────────────────────────────────────────────
    def _logprobs(self, branch: Branch) -> None:
        values = self._compare(branch.prefix, branch.token_ids, branch.logprob)
        for value, token in zip(values, branch.logprobs or (), strict=False):
            self._agree(value, token.logprob, 1)

    def _compare(self, prefix: Sequence[int], tokens: Sequence[int], logprob: float) -> list[float]:
        """Score the tokens; their sum must be the one the branch was given."""
        (scored,) = self.llm.score(prefix, [tokens])
        self._agree(scored.logprob, logprob, len(tokens))
        return [token.logprob for token in scored.token_logprobs]

    def _agree(self, value: float, other: float, num_tokens: int) -> None:
        difference = abs(value - other) / num_tokens
        if not difference <= self.tolerance:
            got = f"{other} over {num_tokens} tokens"
            raise IntegrityError(expected_got("log-probability", f"about {value}", got))
        self.tally.differs_by(difference)


def _history(branch: Branch, at: int) -> History | None:
    if not branch.params.penalises:
        return None
    return History(prompt=frozenset(branch.prefix), generated=Counter(branch.token_ids[:at]))
