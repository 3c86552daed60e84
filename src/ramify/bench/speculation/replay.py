"""Replayed speculation on a model of random weights: what does a verified draft tree bring?

Tokens are drawn so hot that the noise alone decides: plain decoding and verification draw the same
ones although logits differ in their last bits, and a drafter can know them. All else is the
engine's own way of speculating.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ramify import LLM
from ramify.bench.attention.ceilings import Ceilings, floor_of
from ramify.bench.env import environment
from ramify.bench.speculation.decoding import WARM_UP_STEPS, Decoded, branches_step_ms, decode
from ramify.bench.speculation.replay_drafter import replay
from ramify.bench.speculation.rows import ReplayRow, VerifyRow
from ramify.core.errors import InputError, expected_got
from ramify.profile.shape import random_prompt
from ramify.search.drafts import RecordedDrafts

ACCEPTED = (4, 4, 5)
"""Tokens a step where no recording is replayed; their mean is that of the APPS recordings."""


@dataclass(frozen=True, kw_only=True)
class ReplayBench:
    """What is measured, on an LLM with a prefix cache and without a drafter of its own.

    Raises InputError for a size that cannot be, or a path longer than the context.
    """

    llm: LLM
    model_name: str
    ceilings: Ceilings  # of the device, measured before the pool took its memory
    recordings: Mapping[str, RecordedDrafts] = field(default_factory=dict)
    prompt_tokens: int = 1000
    new_tokens: int = 300
    draft_rows: Sequence[int] = (64, 128, 256)
    contexts: Sequence[int] = (1024, 4096, 16384)
    steps: int = 24
    seed: int = 0
    commit: str | None = None  # of the sources, where they are a copy
    progress: Callable[[str], None] = lambda text: None
    done: Callable[[ReplayRow | VerifyRow], None] = lambda row: None  # gets every row at once

    def __post_init__(self) -> None:
        for name, least in (("new_tokens", 8), ("steps", 2), ("prompt_tokens", 1)):
            if getattr(self, name) < least:
                raise InputError(expected_got(name, f"at least {least}", getattr(self, name)))
        # below 16 rows a binary tree has no path of five
        if min(self.draft_rows, default=16) < 16:
            raise InputError(expected_got("draft_rows", "at least 16", min(self.draft_rows)))
        longest = max(c + self.tokens_of_steps for c in (*self.contexts, 0))
        longest = max(longest, self.prompt_tokens + self.new_tokens)
        limit = self.llm.engine.limits.max_context
        if longest > limit:
            raise InputError(expected_got("path", f"at most {limit} tokens", f"{longest} tokens"))

    @property
    def tokens_of_steps(self) -> int:
        """Tokens to decode so that there are enough verifying steps."""
        return (self.steps + WARM_UP_STEPS + 2) * max(ACCEPTED)

    @property
    def vocab_size(self) -> int:
        """Of the model."""
        return self.llm.engine.live.codec.vocab_size

    def plain(self, prompt_tokens: int, new_tokens: int) -> Decoded:
        """Decode without drafts, before any drafter is set."""
        prompt = random_prompt(prompt_tokens, self.vocab_size, self.seed)
        return decode(self.llm, prompt, new_tokens=new_tokens, seed=self.seed)

    def rows_ms(self, size: int) -> float:
        """Milliseconds of a plain step of as many rows as a draft of `size` has."""
        return branches_step_ms(self.llm, size, steps=self.steps, seed=self.seed)

    def verified(
        self, plain: Decoded, prompt_tokens: int, parent: Sequence[int], accepted: Sequence[int]
    ) -> Decoded:
        """Decode the same tokens by drafts of a structure."""
        replay(self.llm, parent, accepted, plain.path)
        prompt, new_tokens = plain.path[:prompt_tokens], len(plain.path) - prompt_tokens
        return decode(self.llm, prompt, new_tokens=new_tokens, seed=self.seed)

    def where(self) -> dict[str, Any]:
        """What every row says."""
        return {
            "model": self.model_name,
            "device": self.llm.config.device,
            "dtype": self.llm.config.dtype,
            "environment": environment(self.commit),
        }


def bench_replays(bench: ReplayBench) -> list[ReplayRow | VerifyRow]:
    """Recordings against plain decoding, then single steps by draft size and context."""
    plain_steps = {c: bench.plain(c, bench.tokens_of_steps) for c in bench.contexts}
    plain = bench.plain(bench.prompt_tokens, bench.new_tokens)
    rows_ms = {size: bench.rows_ms(size) for size in bench.draft_rows}
    rows: list[ReplayRow | VerifyRow] = []
    for name, recorded in bench.recordings.items():
        rows.append(_replay(bench, name, recorded, plain))
        bench.done(rows[-1])
    for context, plain in plain_steps.items():
        for size in bench.draft_rows:
            rows.append(_verify(bench, plain, context, rows_ms[size], size))
            bench.done(rows[-1])
    return rows


def _replay(bench: ReplayBench, name: str, recorded: RecordedDrafts, plain: Decoded) -> ReplayRow:
    accepted = recorded.accepted[0]
    found = bench.verified(plain, bench.prompt_tokens, recorded.parent, accepted)
    row = ReplayRow(
        recording=name,
        rows_per_step=len(recorded.parent),
        prompt_tokens=bench.prompt_tokens,
        generated_tokens=bench.new_tokens,
        recorded_per_step=sum(accepted) / len(accepted),
        tokens_per_step=found.tokens_per_step,
        plain_step_ms=plain.step_ms,
        verify_step_ms=found.step_ms,
        speedup=found.tok_per_s / plain.tok_per_s,
        num_different=_num_different(found, plain),
        **bench.where(),
    )
    bench.progress(f"{name}: {row.speedup:.2f} times plain decoding")
    return row


def _verify(
    bench: ReplayBench, plain: Decoded, context: int, rows_ms: float, size: int
) -> VerifyRow:
    """Binary draft trees of `size` rows, the branch's tip among them."""
    parent = [-1, *((place - 1) // 2 for place in range(1, size))]
    found = bench.verified(plain, context, parent, ACCEPTED)
    executor = bench.llm.engine.executor
    layer = floor_of(found.largest, executor.attention.heads, bench.ceilings)
    floor_ms = layer.us * executor.model.config.num_layers / 1e3
    row = VerifyRow(
        rows_per_step=found.largest.num_rows,
        context=context,
        tokens_per_step=found.tokens_per_step,
        plain_step_ms=plain.step_ms,
        verify_step_ms=found.step_ms,
        attention_floor_ms=floor_ms,
        ratio=found.step_ms / (plain.step_ms + floor_ms),
        rows_step_ms=rows_ms,
        rows_ratio=found.step_ms / (rows_ms + floor_ms),
        **bench.where(),
    )
    bench.progress(f"{size} rows over {context} tokens: {row.verify_step_ms:.2f} ms")
    return row


def _num_different(own: Decoded, other: Decoded) -> int:
    return sum(a != b for a, b in zip(own.path, other.path, strict=True))
