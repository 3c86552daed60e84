"""Recorded reasoning trees, in the format of DeFT's workloads (Yao et al., ICLR 2025).

A file is a JSON list of `{incompleted, prompt, data: {"<id>": {id, value, start, end, children}}}`.
`value` counts a node's tokens; they are computed one a step in the decode iterations `start..end`,
both included. The root is the prompt and its last token is computed in iteration 0. Children start
in the iteration after their parent's last. An empty leaf (`value` 0, `end` = `start` - 1) is known
from real files: a branch that was opened and never grew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from ramify.core.errors import InputError, expected_got


class RecordedNode(msgspec.Struct, frozen=True, kw_only=True):
    """One span of a recorded tree; `start` and `end` are decode iterations, both included."""

    id: int
    value: int
    start: int
    end: int
    children: list[int]


class _Entry(msgspec.Struct, kw_only=True):
    incompleted: bool
    data: dict[str, RecordedNode]


@dataclass(frozen=True, kw_only=True)
class RecordedTree:
    """A recorded tree, checked; `nodes` is in preorder, the root first.

    `cut_after[id]` is the last iteration that needs a node's tokens: the largest `end` below it.
    """

    nodes: tuple[RecordedNode, ...]
    cut_after: dict[int, int]

    @property
    def root(self) -> RecordedNode:
        """The node that holds the prompt."""
        return self.nodes[0]

    @property
    def num_iterations(self) -> int:
        """Decode iterations from 0, which ends the prompt, to the last token of the last leaf."""
        return self.cut_after[self.root.id] + 1

    @property
    def generated_tokens(self) -> int:
        """Tokens of all nodes below the root."""
        return sum(node.value for node in self.nodes[1:])

    @property
    def longest_path(self) -> int:
        """Tokens on the longest path, the prompt included."""
        return self.root.value + max(0, *(node.end for node in self.nodes))

    @property
    def peak_live_tokens(self) -> int:
        """The most tokens that are held at once: what a pool must have room for."""
        return max(self.live_tokens_at(node.end) for node in self.nodes)

    def rows_at(self, iteration: int) -> int:
        """Nodes that compute a token in an iteration."""
        return sum(node.start <= iteration <= node.end for node in self.nodes)

    def live_tokens_at(self, iteration: int) -> int:
        """Tokens held once an iteration is computed, before its last leaves are cut."""
        return sum(
            min(node.value, iteration - node.start + 1)
            for node in self.nodes
            if node.start <= iteration <= self.cut_after[node.id]
        )

    def scaled(self, max_context: int) -> RecordedTree:
        """The same tree with every length divided so that its longest path fits a context.

        This is another workload: all nodes, the prompt too, are shortened by one common divisor, a
        node that had tokens keeps at least one, and iterations are counted anew. A tree that fits
        is returned as it is. Raises InputError when it is too deep to fit.
        """
        divisor, tree = 1, self
        while tree.longest_path > max_context:
            if all(node.value <= 1 for node in tree.nodes):
                wanted = f"at least {tree.longest_path} for this tree"
                raise InputError(expected_got("max_context", wanted, max_context))
            divisor = max(divisor + 1, self.longest_path // max_context)
            tree = self._divided(divisor)
        return tree

    def _divided(self, divisor: int) -> RecordedTree:
        begin = {self.root.id: 1 - _shorter(self.root.value, divisor)}
        nodes = []
        for node in self.nodes:
            value = _shorter(node.value, divisor)
            end = begin[node.id] + value - 1
            nodes.append(msgspec.structs.replace(node, value=value, start=begin[node.id], end=end))
            begin.update(dict.fromkeys(node.children, end + 1))
        return _finished(nodes)


def load_recorded_trees(path: str | Path) -> list[RecordedTree]:
    """Read the complete trees of a file, in order; entries marked `incompleted` are skipped.

    Raises InputError, naming the file and the tree, when the file cannot be read or is not of the
    format, and for a cycle, an orphan, a missing root, a length or an iteration that do not agree.
    """
    try:
        entries = msgspec.json.decode(Path(path).read_bytes(), type=list[_Entry])
    except OSError as error:
        raise InputError(expected_got(str(path), "a readable file", error.strerror)) from error
    except msgspec.MsgspecError as error:
        raise InputError(expected_got(str(path), "a list of recorded trees", error)) from error
    return [
        check_tree(entry.data, f"{path}, tree {index}")
        for index, entry in enumerate(entries)
        if not entry.incompleted
    ]


def check_tree(data: dict[str, RecordedNode], name: str = "recorded tree") -> RecordedTree:
    """Make a tree of its nodes by id; raises InputError, led by `name`, when they are not one."""
    nodes: dict[int, RecordedNode] = {}
    for key, node in data.items():
        _check(key == str(node.id), name, f"key {node.id} for node {node.id}", f"key {key!r}")
        nodes[node.id] = node
        _check_span(node, name)
    order = _preorder(nodes, _root(nodes, name), name)
    for node in order:
        for child in node.children:
            _check(
                nodes[child].start == node.end + 1,
                name,
                f"node {child} to start at {node.end + 1}, after its parent {node.id}",
                f"start {nodes[child].start}",
            )
    return _finished(order)


def _check(holds: bool, name: str, wanted: str, got: str) -> None:
    if not holds:
        raise InputError(expected_got(name, wanted, got))


def _check_span(node: RecordedNode, name: str) -> None:
    _check(
        node.value == node.end - node.start + 1,
        name,
        f"node {node.id} to have end - start + 1 = {node.end - node.start + 1} tokens",
        f"value {node.value}",
    )
    lowest = 1 if node.children else 0
    _check(
        node.value >= lowest, name, f"node {node.id} to have >= {lowest} tokens", f"{node.value}"
    )


def _root(nodes: dict[int, RecordedNode], name: str) -> RecordedNode:
    """The one node that is nobody's child; also checks that every child exists, with one parent."""
    parent_of: dict[int, int] = {}
    for node in nodes.values():
        for child in node.children:
            _check(
                child in nodes, name, f"child {child} of node {node.id} to exist", "no such node"
            )
            once = f"node {child} to have one parent"
            _check(child not in parent_of, name, once, f"{parent_of.get(child)} and {node.id}")
            parent_of[child] = node.id
    roots = [node for node in nodes.values() if node.id not in parent_of]
    _check(
        bool(roots), name, "a root, a node that is nobody's child", f"none of {len(nodes)} nodes"
    )
    tops = [node for node in roots if node.end == 0]
    orphans = [node.id for node in roots if node.end != 0] or [node.id for node in tops[1:]]
    _check(bool(tops), name, "a root whose end is 0", f"end {roots[0].end} at node {roots[0].id}")
    _check(not orphans, name, f"every node to descend from root {tops[0].id}", f"orphans {orphans}")
    _check(tops[0].value >= 1, name, "a prompt of >= 1 token", f"{tops[0].value}")
    return tops[0]


def _preorder(nodes: dict[int, RecordedNode], root: RecordedNode, name: str) -> list[RecordedNode]:
    order, stack = [], [root]
    while stack:
        order.append(stack.pop())
        stack.extend(nodes[child] for child in reversed(order[-1].children))
    # with one parent each, what the root does not reach can only go round in a circle
    circle = sorted(nodes.keys() - {node.id for node in order})
    _check(not circle, name, f"every node to descend from root {root.id}", f"a cycle of {circle}")
    return order


def _finished(order: list[RecordedNode]) -> RecordedTree:
    cut_after: dict[int, int] = {}
    for node in reversed(order):
        cut_after[node.id] = max([node.end, *(cut_after[child] for child in node.children)])
    return RecordedTree(nodes=tuple(order), cut_after=cut_after)


def _shorter(value: int, divisor: int) -> int:
    return max(value // divisor, 1) if value else 0
