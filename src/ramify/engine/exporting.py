"""Trees of the engine as documents: live ones, and those of results."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.core.outputs import CompletionOutput, RequestOutput, SearchResult, TreeNode
from ramify.engine.codec import Codec
from ramify.engine.engine import Engine
from ramify.engine.request import Request
from ramify.engine.results import tree_nodes
from ramify.engine.text import CONTEXT_TOKENS, TextStream
from ramify.export import ExportedTree, make_tree
from ramify.search.tree import NodeState

UNFINISHED = "\ufffd"
"""What a decoder puts in the place of bytes that are no whole character."""


def export_request(engine: Engine, request: Request) -> ExportedTree:
    """A tree as it is now; its outputs are those of its finish, if it is over."""
    finish = request.finish
    return make_tree(
        nodes := tree_nodes(request.tree),
        _texts(engine.live.codec, nodes),
        model=engine.name,
        outputs=() if finish is None else finish.outputs,
        usage=request.usage,
        stats={} if finish is None else finish.stats,
        solved=finish is not None and finish.solved,
        kv_bytes_per_token=engine.executor.kv_bytes_per_token,
    )


def export_result(engine: Engine, result: SearchResult | RequestOutput) -> ExportedTree:
    """The tree of a search, or of plain sampling: the prompt and a node for each output."""
    if isinstance(result, SearchResult):
        nodes, outputs, stats = result.tree, result.output_nodes, result.stats
        is_solved = result.solved
    else:
        nodes, stats, is_solved = _nodes_of(result), {}, False
        # beams come best first; plain samples come in no order, so none of them is called best
        outputs = [node.id for node in nodes[1:] if node.score is not None]
    return make_tree(
        nodes,
        _texts(engine.live.codec, nodes),
        model=engine.name,
        outputs=outputs,
        usage=result.usage,
        stats=stats,
        solved=is_solved,
        kv_bytes_per_token=engine.executor.kv_bytes_per_token,
    )


def _nodes_of(output: RequestOutput) -> list[TreeNode]:
    """Plain sampling as a tree of two levels."""
    root = TreeNode(
        id=0,
        parent=None,
        token_ids=list(output.prompt_token_ids),
        text=output.prompt or "",
        state=NodeState.IDLE.value,
        cumulative_logprob=0.0,
    )
    return [root, *(_branch(branch) for branch in output.outputs)]


def _branch(branch: CompletionOutput) -> TreeNode:
    return TreeNode(
        id=branch.index + 1,
        parent=0,
        token_ids=list(branch.token_ids),
        text=branch.text,
        state=(NodeState.GROWING if branch.finish_reason is None else NodeState.IDLE).value,
        cumulative_logprob=branch.cumulative_logprob,
        token_logprobs=branch.token_logprobs,
        score=branch.score,
        finish_reason=branch.finish_reason,
        stop_reason=branch.stop_reason,
        seed=branch.seed,
    )


def _texts(codec: Codec, nodes: Sequence[TreeNode]) -> list[list[str]]:
    """The text of every token of every node."""
    if codec.tokenizer is None:
        return [[] for _ in nodes]
    tails: dict[int | None, list[int]] = {None: []}
    known: dict[int, str] = {}
    texts = []
    for node in nodes:
        above = tails[node.parent]
        texts.append(_token_texts(codec, above, node.token_ids, known))
        tails[node.id] = [*above, *node.token_ids[-CONTEXT_TOKENS:]][-CONTEXT_TOKENS:]
    return texts


def _token_texts(
    codec: Codec, above: Sequence[int], tokens: Sequence[int], known: dict[int, str]
) -> list[str]:
    """Texts that join to that of the tokens, special ones spelled out.

    `known` remembers tokens decoded alone. Where a character spans tokens, the one that completes
    it has it, and those before are empty.
    """
    for token in set(tokens) - known.keys():
        known[token] = codec.decode((token,))
    texts = [known[token] for token in tokens]
    if UNFINISHED not in (joined := "".join(texts)) and joined == codec.decode(tokens):
        return texts
    stream = TextStream(codec.tokenizer, above, skip_special_tokens=False)
    texts = [stream.push(token) for token in tokens]
    return [*texts[:-1], texts[-1] + stream.flush()]
