"""Paths cut at a token: a fork inside a node, and a branch that takes its last tokens back.

Both are metadata only. The tree keeps what was cut off as a pruned node, so that it can still be
read and exported.
"""

from __future__ import annotations

from ramify.core.errors import InputError, expected_got
from ramify.core.seeds import child_seed
from ramify.engine.live import LiveTrees
from ramify.engine.request import Request
from ramify.engine.text import CONTEXT_TOKENS, TextStream
from ramify.search.tree import LogicalNode, NodeState

FORK_SEEDS = 1 << 32
"""Offset of the child indices used by forks, clear of those that `Expand` counts from 0."""


def fork_at(live: LiveTrees, request: Request, node: int, at: int) -> LogicalNode:
    """A new idle node whose path is the first `at` tokens of the node's path; no KV is copied.

    Raises:
        InputError: `at` is not in [tokens of the prompt, tokens of the path], or no live path goes
            through the node; nothing was changed.
    """
    tree, prompt = request.tree, len(request.prompt_ids)
    path = tree.path(node)
    length = sum(len(step.token_ids) for step in path)
    is_int = isinstance(at, int) and not isinstance(at, bool)
    if not is_int or not prompt <= at <= length:
        raise InputError(expected_got("at", f"an int in [{prompt}, {length}]", repr(at)))
    cursor = live.path_of(request, node)
    begin, step = 0, path[0]
    for step in path:
        if begin + len(step.token_ids) >= at:
            break
        begin += len(step.token_ids)
    made = _first_tokens(live, request, step, at - begin)
    request.cursors[made.id] = live.cache.fork(cursor, at)
    return made


def rewind_to(live: LiveTrees, request: Request, node: int, to: int) -> LogicalNode:
    """Fork a leaf at `to`, then prune it: the tokens behind `to` lose their KV, those before keep.

    Raises:
        InputError: something lives below the node, or `to` is out of range; nothing was changed.
    """
    below = [n.id for n in request.tree.subtree(node)[1:] if n.state is not NodeState.PRUNED]
    if below:
        got = f"node {below[0]} below it"
        raise InputError(expected_got(f"node {node}", "a leaf to rewind; prune or fork", got))
    made = fork_at(live, request, node, to)
    live.prune(request, node)
    return made


def _first_tokens(live: LiveTrees, request: Request, step: LogicalNode, count: int) -> LogicalNode:
    """A sibling that holds the first `count` tokens of a node; of the root: a child with none."""
    tree = request.tree
    above = tree.root if step.parent is None else step.parent
    index = FORK_SEEDS + request.next_fork(step.id)
    made = tree.add(above, seed=child_seed(step.seed, index))
    made.state, made.forked_from = NodeState.IDLE, step.id
    if step.parent is None:
        return made
    made.token_ids, made.structured = step.token_ids[:count], step.structured
    made.token_logprobs = step.token_logprobs[:count]
    made.logprobs = None if step.logprobs is None else step.logprobs[:count]
    made.cumulative_logprob += sum(made.token_logprobs)
    made.text = step.text
    if count < len(step.token_ids):
        stream = TextStream(live.codec.tokenizer, tree.tail(above, CONTEXT_TOKENS))
        made.text = stream.extend(made.token_ids) + stream.flush()
    return made
