"""What a request gives back: texts, tokens, scores, the tree, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(kw_only=True)
class Usage:
    """What a request cost.

    `verified_steps` counts branches and steps in which a draft of a branch was verified;
    `drafted_tokens` were verified there, `accepted_tokens` of them kept.
    `kv_bytes_read` is what attention read for it, KV shared with other branches divided among
    them; `kv_bytes_per_branch` is what decoding each branch alone would have read.
    `reward_tokens` were computed by a second model that valued branches, with KV of its own.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    steps: int = 0
    preemptions: int = 0
    verified_steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    kv_bytes_read: int = 0
    kv_bytes_per_branch: int = 0
    reward_tokens: int = 0
    reward_kv_bytes_read: int = 0
    queue_s: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0

    @property
    def tokens_per_verified_step(self) -> float:
        """Mean tokens of a branch's step that verified a draft; 1.0 when there was none."""
        return 1 + self.accepted_tokens / self.verified_steps if self.verified_steps else 1.0

    @property
    def acceptance_rate(self) -> float:
        """Share of the drafted tokens that were accepted; 0.0 when none was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0

    @property
    def kv_saving(self) -> float:
        """How many times fewer KV bytes were read than branch by branch; 1.0 when nothing was."""
        return self.kv_bytes_per_branch / self.kv_bytes_read if self.kv_bytes_read else 1.0


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """The log-probability of one token and, when asked, the most probable tokens at its place.

    Natural log of the model's own distribution, before temperature, penalties and filters.
    """

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@dataclass(kw_only=True)
class CompletionOutput:
    """One finished (or still growing) branch.

    `token_logprobs` are those of `token_ids` by the model's own distribution, natural log, and need
    not be asked for; None where some token's is not known, as of beams and of given text.
    `logprobs` has ranks and alternatives too, where `SamplingParams.logprobs` asked for them.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float
    token_logprobs: list[float] | None = None
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    seed: int = 0
    score: float | None = None


@dataclass(kw_only=True)
class RequestOutput:
    """A prompt with its branches. `error` holds the message when the request itself failed."""

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    usage: Usage
    prompt_logprobs: list[TokenLogprob | None] | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreOutput:
    """Log-probability of one continuation of a prompt, token by token (natural log)."""

    token_ids: list[int]
    token_logprobs: list[TokenLogprob]

    @property
    def logprob(self) -> float:
        """Log-probability of the whole continuation."""
        return sum(t.logprob for t in self.token_logprobs)


@dataclass(kw_only=True)
class TreeNode:
    """One node of a tree, as exported: a span of tokens.

    `token_logprobs` is None for given tokens whose probability was not asked for. A node that was
    forked from another begins with that one's tokens, and the KV of these is stored there.
    """

    id: int
    parent: int | None
    token_ids: list[int]
    text: str
    state: str
    cumulative_logprob: float
    token_logprobs: list[float] | None = None
    score: float | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    seed: int = 0
    forked_from: int | None = None


@dataclass(kw_only=True)
class SearchResult:
    """The outcome of a search: the best branch, all returned branches, the tree and its cost.

    `output_nodes` are the nodes of the tree at which `outputs` end.
    """

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    best: CompletionOutput | None
    outputs: list[CompletionOutput]
    output_nodes: list[int] = field(default_factory=list)
    tree: list[TreeNode]
    usage: Usage
    stats: dict[str, float | int | str] = field(default_factory=dict)
    solved: bool = False
    error: str | None = None
