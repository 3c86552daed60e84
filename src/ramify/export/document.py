"""An exported tree: every node with its tokens, scores and fate, and what its KV was shared by.

The fields are the format: JSON has the same names. A field that is added with a default keeps
VERSION; anything else raises it, and `read_tree` says which versions it knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from ramify.core.outputs import TreeNode, Usage

FORMAT = "ramify-tree"
VERSION = 1


class ExportedNode(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A span of tokens below one parent.

    Attributes:
        id, parent: parents come before their children; the root has none and holds the prompt.
        token_ids, token_texts: one each per token, end-of-text and the like spelled out; no texts
            where the model has no tokenizer.
        text: what a reader sees of the tokens, without the stop string that ended them.
        token_logprobs: natural log, one per token; None where they are not known. An impossible
            token that was given has None too.
        cumulative_logprob: of the path below the root, tokens with known probabilities only.
        score: what a scorer said; None too if that was no finite number.
        state: growing, idle, closed or pruned.
        seed: what the node drew its tokens with.
        forked_from: the node whose first tokens these are; their KV is stored there.
        num_branches: paths that end at this node or below it, pruned ones too; its KV is stored
            once for all of them.
    """

    id: int
    parent: int | None
    token_ids: list[int]
    token_texts: list[str]
    text: str
    token_logprobs: list[float | None] | None
    cumulative_logprob: float | None
    score: float | None
    state: str
    finish_reason: str | None
    stop_reason: str | int | None
    seed: int
    forked_from: int | None
    num_branches: int


class ExportedTree(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A tree with its results and its cost.

    Attributes:
        model: the name or directory the model was loaded from.
        nodes: in order of birth.
        outputs: ids of the nodes at which results end, best first.
        usage: what the whole tree has cost.
        stats: what the search counted; numbers and words.
        solved: whether a scorer called the best result right.
        kv_bytes_per_token: size of one token's K and V in all layers.
    """

    format: str = FORMAT
    version: int = VERSION
    model: str
    nodes: list[ExportedNode]
    outputs: list[int]
    usage: Usage
    stats: dict[str, float | int | str]
    solved: bool
    kv_bytes_per_token: int

    @property
    def stored_tokens(self) -> int:
        """Tokens whose KV the tree needs when every span is stored once."""
        return sum(len(node.token_ids) for node in self.nodes if node.forked_from is None)

    @property
    def branch_tokens(self) -> int:
        """Tokens whose KV all branches need when each stores its path alone."""
        return sum(len(node.token_ids) * node.num_branches for node in self.nodes)


def make_tree(
    nodes: Sequence[TreeNode],
    token_texts: Iterable[Sequence[str]],
    *,
    model: str,
    outputs: Sequence[int],
    usage: Usage,
    stats: Mapping[str, float | int | str],
    solved: bool,
    kv_bytes_per_token: int,
) -> ExportedTree:
    """A document from a tree's nodes, parents first, and the texts of each node's tokens."""
    branches = count_branches(nodes)
    return ExportedTree(
        model=model,
        nodes=[
            _make_node(node, texts, branches[node.id])
            for node, texts in zip(nodes, token_texts, strict=True)
        ],
        outputs=list(outputs),
        usage=replace(usage),  # a live tree goes on counting
        stats={name: value for name, value in stats.items() if _is_finite(value)},
        solved=solved,
        kv_bytes_per_token=kv_bytes_per_token,
    )


def count_branches(nodes: Sequence[TreeNode]) -> dict[int, int]:
    """For each node the leaves at it or below it; parents come before their children."""
    is_parent = {node.parent for node in nodes}
    branches = {node.id: int(node.id not in is_parent) for node in nodes}
    for node in reversed(nodes):
        if node.parent is not None:
            branches[node.parent] += branches[node.id]
    return branches


def _make_node(node: TreeNode, texts: Sequence[str], num_branches: int) -> ExportedNode:
    logprobs = node.token_logprobs
    return ExportedNode(
        id=node.id,
        parent=node.parent,
        token_ids=list(node.token_ids),
        token_texts=list(texts),
        text=node.text,
        token_logprobs=None if logprobs is None else [_finite(one) for one in logprobs],
        cumulative_logprob=_finite(node.cumulative_logprob),
        score=_finite(node.score),
        state=node.state,
        finish_reason=node.finish_reason,
        stop_reason=node.stop_reason,
        seed=node.seed,
        forked_from=node.forked_from,
        num_branches=num_branches,
    )


def _finite(value: float | None) -> float | None:
    """The number as a float, None for infinities and NaN: JSON has no word for them."""
    return float(value) if value is not None and math.isfinite(value) else None


def _is_finite(value: float | int | str) -> bool:
    return isinstance(value, str) or math.isfinite(value)
