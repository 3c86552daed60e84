"""What a request cost, against decoding each of its branches alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ramify.core.outputs import Usage


def add_usage(usages: list[Usage]) -> Usage:
    """The sum of several requests that ran one after another."""
    return Usage(
        prompt_tokens=sum(u.prompt_tokens for u in usages),
        cached_tokens=sum(u.cached_tokens for u in usages),
        generated_tokens=sum(u.generated_tokens for u in usages),
        computed_tokens=sum(u.computed_tokens for u in usages),
        steps=sum(u.steps for u in usages),
        preemptions=sum(u.preemptions for u in usages),
        verified_steps=sum(u.verified_steps for u in usages),
        drafted_tokens=sum(u.drafted_tokens for u in usages),
        accepted_tokens=sum(u.accepted_tokens for u in usages),
        kv_bytes_read=sum(u.kv_bytes_read for u in usages),
        kv_bytes_per_branch=sum(u.kv_bytes_per_branch for u in usages),
        reward_tokens=sum(u.reward_tokens for u in usages),
        reward_kv_bytes_read=sum(u.reward_kv_bytes_read for u in usages),
        total_s=sum(u.total_s for u in usages),
    )


def usage_line(usage: Usage) -> str:
    """One line: tokens, steps, KV bytes read and what per-branch decoding would have read, time."""
    # a beam search samples nothing: it appends the tokens it chose
    tokens = f"{usage.generated_tokens or usage.computed_tokens} tokens"
    drafts = ""
    if usage.verified_steps:
        drafts = (
            f" ({usage.accepted_tokens} of {usage.drafted_tokens} drafted tokens accepted, "
            f"{usage.tokens_per_verified_step:.2f} tokens a step that drafts)"
        )
    return (
        f"{tokens} in {usage.steps} steps{drafts}, {usage.total_s:.2f} s; "
        f"KV read {mib(usage.kv_bytes_read)}, per branch {mib(usage.kv_bytes_per_branch)} "
        f"({usage.kv_saving:.1f}x less)"
    )


def usage_document(usage: Usage) -> dict[str, Any]:
    """The usage as JSON, with the saving spelled out."""
    return {**asdict(usage), "kv_saving": usage.kv_saving}


def mib(num_bytes: int) -> str:
    """Bytes in MiB."""
    return f"{num_bytes / 2**20:.1f} MiB"
