"""Forests to measure attention on, written `nodes per level x tokens per node`.

One text says all that a case needs:

    1,20x4000,200        a prompt of 4000 tokens with 20 branches of 200
    16x8192              16 requests that share nothing
    16x8192~0.1          the same tokens in all, the shortest request a tenth of the longest
    12,390x4096,256~0.1  12 trees of unequal prompts, unequal leaves and unequal numbers of leaves
    32x8192+draft64      32 requests, each with a binary tree of 64 one-token drafts to verify
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest

ROOM = 8  # free slots behind every node, so that leaves can grow and stray reads meet junk
SPREAD_SEED = 0  # of the order that unequal sizes come in

_SHAPE = re.compile(
    r"(?P<nodes>\d+(,\d+)*)x(?P<tokens>\d+(,\d+)*)(~(?P<ratio>\d*\.?\d+))?(\+draft(?P<draft>\d+))?"
)


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


def levels(
    nodes: Sequence[int], tokens: Sequence[int], draft: int = 0, ratio: float = 1.0
) -> TreeShape:
    """Levels of nodes, children spread evenly over the level above, one row per leaf.

    Args:
        nodes, tokens: per level the number of nodes and their mean length. Several nodes on the
            first level are as many trees.
        draft: a binary tree of so many one-token nodes hangs below every leaf; these are the rows.
        ratio: smallest over largest length of a level's nodes, and number of children of a node;
            in between they are evenly spaced, in a fixed random order. 1: all alike.
    """
    rng = np.random.default_rng(SPREAD_SEED)
    parent: list[int] = []
    length: list[int] = []
    above = range(0)
    for count, node_tokens in zip(nodes, tokens, strict=True):
        first = len(parent)
        if above:
            parent += np.repeat(above, spread(count, len(above), ratio, rng)).tolist()
        else:
            parent += [-1] * count
        length += spread(count * node_tokens, count, ratio, rng)
        above = range(first, len(parent))
    name = f"{','.join(map(str, nodes))}x{','.join(map(str, tokens))}"
    name += f"~{ratio:g}" if ratio != 1 else ""
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


def spread(total: int, count: int, ratio: float, rng: np.random.Generator) -> list[int]:
    """`count` whole numbers of sum `total`, evenly spaced, the least `ratio` of the most."""
    if ratio == 1:
        edges = -(-np.arange(count + 1) * total // count)
    else:
        weights = np.append(0.0, rng.permutation(np.linspace(ratio, 1.0, count)))
        edges = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    return np.diff(edges).tolist()


def parse_levels(shape: str) -> TreeShape:
    """The tree of a text like those above. Raises InputError for any other text."""
    found = _SHAPE.fullmatch(shape)
    nodes, tokens = (
        [int(n) for n in found[part].split(",")] if found else [] for part in ("nodes", "tokens")
    )
    ratio = float(found["ratio"] or 1) if found else 0.0
    if len(nodes) != len(tokens) or min(nodes, default=0) < 1 or not 0 < ratio <= 1:
        wanted = "levels like 1,20x4000,200 (~ratio up to 1, +draft64)"
        raise InputError(expected_got("shape", wanted, repr(shape)))
    assert found is not None
    return levels(nodes, tokens, draft=int(found["draft"] or 0), ratio=ratio)
