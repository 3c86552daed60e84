"""Choosing a method for a forest and building its plan."""

from __future__ import annotations

from dataclasses import replace

from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.flatten import plan_flatten
from ramify.attention.plan.fused import plan_fused
from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.lean import plan_lean
from ramify.attention.plan.node import plan_node
from ramify.attention.plan.node_chunk import plan_node_chunk
from ramify.attention.plan.per_branch import plan_per_branch
from ramify.attention.plan.plan import AttentionPlan
from ramify.core.config import ATTENTION_METHODS
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest

METHODS = ATTENTION_METHODS
BLOCK_TOKENS = 128  # the block of the DeFT paper
# grouping adds partial results and masks, so it must save at least this part of the reads
MIN_SAVED = 0.05


def build_plan(
    forest: Forest,
    method: str = "auto",
    *,
    block_tokens: int = BLOCK_TOKENS,
    heads: HeadShape | None = None,
    tuning: Tuning | None = None,
    why: str = "asked for",
) -> AttentionPlan:
    """The work list of one step.

    Args:
        method: one of METHODS, or "auto" to let `choose_method` decide.
        block_tokens: tokens per block of node_chunk and flatten.
        heads, tuning: what work is weighed with and cut for; without tuning per_branch is not cut.
        why: how the method came to be chosen, for the plan to say; "auto" gives its own reason.
    Raises:
        InputError: unknown method, or block_tokens below 1.
    Cost: O(nodes + rows + blocks) for the grouped methods; per_branch lists each path's runs.
    """
    check_method(method)
    if block_tokens < 1:
        raise InputError(expected_got("block_tokens", "at least 1", block_tokens))
    if method == "auto":
        method, why = choose_method(forest)
    if method == "per_branch":
        plan = plan_per_branch(forest, tuning)
    elif method == "node":
        plan = plan_node(forest)
    elif method == "node_chunk":
        plan = plan_node_chunk(forest, block_tokens)
    elif method == "lean":
        plan = plan_lean(forest, tuning)
    elif method == "fused":
        plan = plan_fused(forest, heads, tuning, why)
    else:
        plan = plan_flatten(forest, block_tokens)
    return plan if why == plan.why else replace(plan, why=why)


def check_method(method: str) -> None:
    """Raise InputError for a method that does not exist, naming those that do."""
    if method not in (*METHODS, "auto"):
        raise InputError(expected_got("method", f"auto, {', '.join(METHODS)}", repr(method)))


def choose_method(forest: Forest) -> tuple[str, str]:
    """The method for a forest and, in words, why."""
    alone, shared = forest.per_branch_tokens, forest.unique_tokens
    if alone == 0:
        return "per_branch", "no row sees any token"
    saved = 1.0 - shared / alone
    reads = f"grouped reads are {shared} tokens, per-branch reads {alone}: {saved:.0%} saved"
    if saved < MIN_SAVED:
        return "per_branch", f"sharing does not pay ({reads})"
    return "flatten", f"sharing pays ({reads})"
