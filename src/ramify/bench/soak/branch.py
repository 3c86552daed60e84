"""Finished branches, taken out of requests, and what must hold of any of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ramify.core.errors import IntegrityError, expected_got
from ramify.core.outputs import RequestOutput, TokenLogprob, Usage
from ramify.core.params import SamplingParams
from ramify.engine import NodeHandle
from ramify.engine.request import Request

MOST_ABOVE_ZERO = 1e-3
"""A log-probability may exceed 0 by rounding alone."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A branch that ended by itself: what it was grown from, by which rules, and what came."""

    prefix: Sequence[int]  # all tokens before the branch's own
    params: SamplingParams  # with the branch's own seed, n = 1
    token_ids: Sequence[int]
    logprob: float  # of its own tokens
    logprobs: Sequence[TokenLogprob] | None
    ending: tuple[str, str | int | None, str]  # finish reason, stop reason, text


def branches_of(request: Request, params: SamplingParams) -> Iterator[Branch]:
    """Branches of a request whose nodes were all sampled by the same rules."""
    tree = request.tree
    for node in tree:
        if node.parent is None or node.finish_reason is None:
            continue
        before = tree.completion_ids(node.parent)
        yield Branch(
            prefix=[*request.prompt_ids, *before],
            params=replace(params, n=1, seed=node.seed, prompt_logprobs=None),
            token_ids=list(node.token_ids),
            logprob=node.cumulative_logprob - tree[node.parent].cumulative_logprob,
            logprobs=node.logprobs,
            ending=(node.finish_reason, node.stop_reason, node.text),
        )


def branches_of_output(output: RequestOutput, params: SamplingParams) -> Iterator[Branch]:
    """Branches of what `generate` returned."""
    for one in output.outputs:
        if one.finish_reason in ("stop", "length"):
            yield Branch(
                prefix=output.prompt_token_ids,
                params=replace(params, n=1, seed=one.seed, prompt_logprobs=None),
                token_ids=one.token_ids,
                logprob=one.cumulative_logprob,
                logprobs=one.logprobs,
                ending=(one.finish_reason, one.stop_reason, one.text),
            )


def branch_of_node(node: NodeHandle, params: SamplingParams) -> Branch | None:
    """A node that was expanded by hand; None if it did not end by itself."""
    above = node.parent
    if above is None or node.finish_reason is None:
        return None
    return Branch(
        prefix=above.path_token_ids,
        params=replace(params, n=1, seed=node.seed),
        token_ids=node.token_ids,
        logprob=node.cumulative_logprob - above.cumulative_logprob,
        logprobs=node.logprobs,
        ending=(node.finish_reason, node.stop_reason, node.text),
    )


def check_branch(branch: Branch, vocab_size: int) -> None:
    """Raise IntegrityError unless lengths, tokens and log-probabilities can be true."""
    count, params = len(branch.token_ids), branch.params
    _expect("tokens of a branch", 1 <= count <= params.max_tokens, count)
    _expect("token ids", all(0 <= t < vocab_size for t in branch.token_ids), branch.token_ids)
    if branch.ending[0] == "stop":
        _expect("tokens before a stop", count >= params.min_tokens, count)
    check_logprob(branch.logprob)
    for at, token in enumerate(branch.logprobs or ()):
        _expect("reported token", token.token_id == branch.token_ids[at], token)
        _expect("rank", token.rank >= 1, token)
        _expect("alternatives", len(token.top) == (params.logprobs or 0), token)
        for value in (token.logprob, *(logprob for _, logprob in token.top)):
            check_logprob(value)


def check_logprob(value: float) -> None:
    """Raise IntegrityError unless it is a finite log-probability."""
    _expect("log-probability", math.isfinite(value) and value <= MOST_ABOVE_ZERO, value)


def check_usage(usage: Usage, prompt_tokens: int) -> None:
    """Raise IntegrityError unless a request's counters can be true."""
    _expect("prompt_tokens", usage.prompt_tokens == prompt_tokens, usage)
    _expect("cached_tokens", 0 <= usage.cached_tokens <= prompt_tokens, usage)
    for name in ("generated_tokens", "computed_tokens", "steps", "preemptions"):
        _expect(name, getattr(usage, name) >= 0, usage)
    # shares are rounded once per block of a step
    slack = usage.kv_bytes_per_branch * 1e-6 + usage.steps + usage.computed_tokens
    is_less = usage.kv_bytes_read <= usage.kv_bytes_per_branch + slack
    # drafts that are not accepted are read for nothing
    _expect("kv_bytes_read", is_less or usage.drafted_tokens > 0, usage)
    _expect("queue_s", 0.0 <= usage.queue_s <= usage.total_s, usage)
    first_s = usage.first_token_s
    _expect("first_token_s", first_s is None or first_s <= usage.total_s, usage)


def _expect(name: str, is_true: bool, got: object) -> None:
    if not is_true:
        raise IntegrityError(expected_got(name, "what can be true", got))
