"""What a `Select` does to the logical tree: the branches that grow in step, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ramify.core.errors import InputError, expected_got
from ramify.search.controller import Select
from ramify.search.tree import LogicalTree, NodeState


class Front:
    """The front of one tree. A node of it, or held by it, may still be grown from."""

    def __init__(self, tree: LogicalTree, start: int) -> None:
        self.start = start
        self.nodes: Sequence[int] = [start]
        self.held: frozenset[int] = frozenset()
        self._tree = tree
        self._base = tree[start].cumulative_logprob

    def check(self, action: Select) -> None:
        """Raise InputError where the action names other nodes than it may, or uneven lists."""
        if action.start != self.start:
            raise InputError(expected_got("Select.start", self.start, action.start))
        for name in ("tokens", "logprobs"):
            got = len(getattr(action, name))
            if got != len(action.nodes):
                raise InputError(expected_got(f"Select.{name}", f"{len(action.nodes)} items", got))
        front = set(self.nodes)
        for name, allowed in (("nodes", front), ("held", front | self.held)):
            if strange := set(getattr(action, name)) - allowed:
                wanted = "nodes of the front" + (" or held" if name == "held" else "")
                raise InputError(expected_got(f"Select.{name}", wanted, min(strange)))

    def move(self, action: Select, text_of: Callable[[int], str]) -> None:
        """Make the new front's nodes and settle what becomes of the old one's.

        Args:
            text_of: a token's text.
        """
        left = {*self.nodes, *self.held} - {self.start}
        logprobs = [self._base + float(logprob) for logprob in action.logprobs]
        columns = action.nodes, action.tokens, logprobs
        self.nodes = self._tree.grow(*columns, action.structured, text_of)
        self.held = frozenset(action.held)
        self._settle(left, set(action.nodes))

    def _settle(self, left: set[int], parents: set[int]) -> None:
        """Close what only its descendants need, prune what nothing needs."""
        tree, held = self._tree, self.held
        tree.mark(left & held, NodeState.IDLE)
        rest = left - held
        dead = [node for node in rest - parents if not tree.leads_on(node)]
        tree.mark(rest.difference(dead), NodeState.CLOSED)
        tree.prune_grown(dead, keep=held | {self.start})
