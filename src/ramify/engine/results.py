"""From a request's logical tree to what users receive."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.core.outputs import CompletionOutput, RequestOutput, SearchResult, TreeNode
from ramify.engine.codec import Codec
from ramify.engine.request import Request
from ramify.engine.text import visible_length
from ramify.search.beam import BeamSearch
from ramify.search.tree import LogicalTree, NodeState


def completion(tree: LogicalTree, node: int, index: int) -> CompletionOutput:
    """The path from the prompt to a node as one completion."""
    steps = tree.path(node)[1:]
    last = tree[node]
    has_logprobs = any(step.logprobs is not None for step in steps)
    known = [step.known_logprobs for step in steps]
    return CompletionOutput(
        index=index,
        text=tree.completion_text(node),
        token_ids=tree.completion_ids(node),
        cumulative_logprob=last.cumulative_logprob,
        token_logprobs=None if None in known else [x for part in known for x in part or ()],
        logprobs=[t for step in steps for t in step.logprobs or ()] if has_logprobs else None,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        seed=last.seed,
        score=last.score,
    )


def request_output(request: Request, *, stops: Sequence[str] = ()) -> RequestOutput:
    """A request as it stands: finished branches if it is done, else all that grow from the root.

    `stops` holds back a tail of growing text that may turn out to be a stop string.
    """
    tree = request.tree
    nodes = request.finish.outputs if request.finish is not None else tree[tree.root].children
    outputs = [completion(tree, node, index) for index, node in enumerate(nodes)]
    for node, output in zip(nodes, outputs, strict=True):
        if tree[node].state is NodeState.GROWING:
            output.text = output.text[: visible_length(output.text, stops)]
        if request.error is not None and output.finish_reason is None:
            output.finish_reason = "error"
    prompt_logprobs = request.prompt_logprobs
    return RequestOutput(
        request_id=request.id,
        prompt=request.prompt,
        prompt_token_ids=request.prompt_ids,
        outputs=outputs,
        finished=request.is_done,
        usage=request.usage,
        # the first token of a prompt has nothing before it that could predict it
        prompt_logprobs=None if prompt_logprobs is None else [None, *prompt_logprobs],
        error=None if request.error is None else str(request.error),
    )


def beam_output(request: Request, search: BeamSearch, codec: Codec) -> RequestOutput:
    """The result of a beam search; whole beams are decoded at once."""
    output = request_output(request)
    # beams choose among probable tokens instead of sampling: what they appended was generated
    output.usage.generated_tokens = request.tree.num_tokens - len(request.prompt_ids)
    nodes = request.finish.outputs if request.finish is not None else ()
    del output.outputs[len(nodes) :]  # of a search that failed: beams on their way
    for node, beam in zip(nodes, output.outputs, strict=True):
        found = search.hypotheses[node]
        beam.cumulative_logprob = found.cumulative_logprob
        beam.finish_reason = found.finish_reason
        beam.text = codec.decode(
            beam.token_ids, skip_special_tokens=search.params.skip_special_tokens
        )
    return output


def search_result(request: Request) -> SearchResult:
    """The outcome of a search with its whole tree. Requires a finished request."""
    assert request.finish is not None, "the search has not finished"
    tree, finish = request.tree, request.finish
    outputs = [completion(tree, node, index) for index, node in enumerate(finish.outputs)]
    return SearchResult(
        request_id=request.id,
        prompt=request.prompt,
        prompt_token_ids=request.prompt_ids,
        best=outputs[0] if outputs else None,
        outputs=outputs,
        output_nodes=list(finish.outputs),
        tree=tree_nodes(tree),
        usage=request.usage,
        stats=dict(finish.stats),
        solved=finish.solved,
    )


def tree_nodes(tree: LogicalTree) -> list[TreeNode]:
    """All nodes of a tree, parents before children, in order of birth."""
    return [
        TreeNode(
            id=node.id,
            parent=node.parent,
            token_ids=list(node.token_ids),
            text=node.text,
            state=node.state.value,
            cumulative_logprob=node.cumulative_logprob,
            token_logprobs=node.known_logprobs,
            score=node.score,
            finish_reason=node.finish_reason,
            stop_reason=node.stop_reason,
            seed=node.seed,
            forked_from=node.forked_from,
        )
        for node in tree
    ]
