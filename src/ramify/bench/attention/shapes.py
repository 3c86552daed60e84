"""The forests that attention is measured on: suites of `nodes per level x tokens per node`.

fasttree and deft are the shapes of those papers' benchmarks; forest, long, flat and spec are what
they leave out: many trees, long documents, nothing shared, and draft verification.
Sources: FastTree, Pan et al. 2025; DeFT, Yao et al. 2025 (arXiv 2404.00242).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest
from ramify.search.recorded import RecordedTree

ROOM = 8  # free slots behind every node, so that leaves can grow and stray reads meet junk


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The heads of one layer."""

    num_q_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128

    @property
    def name(self) -> str:
        """As in `32/8`."""
        return f"{self.num_q_heads}/{self.num_kv_heads}"


@dataclass(frozen=True, kw_only=True)
class TreeShape:
    """Nodes and rows of a forest, before anything is placed in a pool."""

    name: str
    parent: tuple[int, ...]
    length: tuple[int, ...]
    query_node: tuple[int, ...]

    def forest(self, grown: int = 0, room: int = ROOM) -> Forest:
        """A new forest, nodes one after another, rows in depth-first order.

        Args:
            grown: tokens added to every leaf that has rows; at most `room`.
            room: free slots behind every node.
        """
        assert grown <= room, "leaves cannot outgrow their room"
        length = np.asarray(self.length, dtype=np.int64)
        begin = np.cumsum(length + room) - length - room
        rows = np.asarray(self.query_node, dtype=np.int64)
        tips = np.setdiff1d(rows, self.parent)
        length = length.copy()
        length[tips] += grown
        placed = Forest.from_nodes(self.parent, length, begin, rows)
        return Forest.from_nodes(self.parent, length, begin, rows[placed.row_order])

    def num_slots(self, room: int = ROOM) -> int:
        """Slots of the pool that `forest` lies in."""
        return sum(self.length) + room * len(self.length)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of a benchmark: a tree, heads, and the suite it belongs to."""

    suite: str
    tree: TreeShape
    heads: Heads


def levels(nodes: Sequence[int], tokens: Sequence[int], draft: int = 0) -> TreeShape:
    """Levels of equal nodes, children spread evenly over the level above, one row per leaf.

    Several nodes on the first level are as many trees. With `draft`, a binary tree of so many
    one-token nodes hangs below every leaf, and these are the rows.
    """
    parent: list[int] = []
    length: list[int] = []
    above = range(0)
    for count, node_tokens in zip(nodes, tokens, strict=True):
        first = len(parent)
        parent += [above[i * len(above) // count] if above else -1 for i in range(count)]
        length += [node_tokens] * count
        above = range(first, len(parent))
    name = f"{','.join(map(str, nodes))}x{','.join(map(str, tokens))}"
    rows: Sequence[int] = above
    if draft:
        first = len(parent)
        for leaf in above:
            base = len(parent)
            parent += [leaf if i == 0 else base + (i - 1) // 2 for i in range(draft)]
        length += [1] * (len(parent) - first)
        rows = range(first, len(parent))
        name += f"+draft{draft}"
    return TreeShape(name=name, parent=tuple(parent), length=tuple(length), query_node=tuple(rows))


def parse_levels(shape: str) -> TreeShape:
    """The tree of a text like `1,20x4000,200`. Raises InputError for any other text."""
    nodes, _, tokens = shape.partition("x")
    try:
        counts = [int(word) for word in nodes.split(",")]
        lengths = [int(word) for word in tokens.split(",")]
    except ValueError:
        counts, lengths = [], []
    is_regular = len(counts) == len(lengths) and min(counts, default=0) > 0
    if not is_regular or min(lengths, default=-1) < 0:
        raise InputError(expected_got("shape", "levels like 1,20x4000,200", repr(shape)))
    return levels(counts, lengths)


def recorded_state(recorded: RecordedTree, iteration: int, name: str = "recorded") -> TreeShape:
    """What is live at one decode iteration: a row per growing node, at the token it computes.

    Raises InputError for an iteration the tree does not have.
    """
    if not 0 <= iteration < recorded.num_iterations:
        allowed = f"a number below {recorded.num_iterations}"
        raise InputError(expected_got("iteration", allowed, iteration))
    live = [
        node
        for node in recorded.nodes
        if node.value and node.start <= iteration <= recorded.cut_after[node.id]
    ]
    index = {node.id: place for place, node in enumerate(live)}
    parent = [-1] * len(live)
    for node in live:
        for child in node.children:
            if child in index:
                parent[index[child]] = index[node.id]
    return TreeShape(
        name=name,
        parent=tuple(parent),
        length=tuple(min(node.end, iteration) - node.start + 1 for node in live),
        query_node=tuple(index[node.id] for node in live if iteration <= node.end),
    )


_FASTTREE = (
    "1,2,64x8,256,32",
    "1,4,256x8,256,32",
    "1,4,8,256x8,256,256,32",
    "1,256x256,32",
    "1,1024x2048,32",
    "1,16,64x1024,256,32",
    "1,4,16,512x1024,256,128,32",
    "1,4,16,64,256,1024x256,8,256,64,32,256",
    "1,10x4000,400",
    "1,2,4,8,16,32,64,128,1024x16,16,16,16,16,16,16,16,16",
)
_MHA = ("1,4,256x8,256,32", "1,1024x2048,32", "1,10x4000,400")
_DEFT = (
    "1,20x4000,200",
    "1,50x4000,200",
    "1,10,50x1000,400,200",
    "1,64x1000,3",
    "1,256x1000,4",
    "1,20x20000,200",
)
_GQA, _PLAIN, _MQA = Heads(), Heads(num_kv_heads=32), Heads(num_q_heads=16, num_kv_heads=1)

_SUITES: dict[str, tuple[tuple[Heads, tuple[str, ...]], ...]] = {
    "fasttree": ((_GQA, _FASTTREE), (_PLAIN, _MHA), (_MQA, _MHA)),
    "deft": ((_GQA, _DEFT), (_PLAIN, ("1,50x4000,200", "1,256x1000,4"))),
    "forest": (
        (_GQA, ("8,64x8192,256", "16,64,512x2048,256,64", "8,16,32,256x512,512,256,32")),
        (_GQA, ("16,256x2048,512",)),
    ),
    "long": ((_GQA, ("1,1x524288,1", "1,16x131072,256", "1,8,64x4096,8192,1024")),),
    "flat": ((_GQA, ("32,32x8192,128", "4,4x131072,64", "256x4096")),),
}
_DRAFTS = ((1, 1000, 64), (32, 8192, 64))  # requests, context, nodes of each draft tree

SUITES = (*_SUITES, "spec")


def suite(name: str) -> list[Case]:
    """The cases of a suite, `SUITES` lists them. Raises InputError for another name."""
    if name == "spec":
        trees = [levels([count], [context], draft) for count, context, draft in _DRAFTS]
        return [Case(suite=name, tree=tree, heads=_GQA) for tree in trees]
    if name not in _SUITES:
        raise InputError(expected_got("suite", ", ".join(SUITES), repr(name)))
    return [
        Case(suite=name, tree=parse_levels(shape), heads=heads)
        for heads, shapes in _SUITES[name]
        for shape in shapes
    ]
