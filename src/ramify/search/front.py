"""What a `Select` does to the logical tree: the branches that grow in step, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ramify.core.errors import InputError, expected_got
from ramify.core.seeds import given_seeds
from ramify.search.controller import Select
from ramify.search.tree import LogicalTree, NodeState


class Front:
    """The front of one tree. A node of it, or held by it, may still be grown from."""

    def __init__(self, tree: LogicalTree, start: int) -> None:
        self.start = start
        self.nodes: Sequence[int] = [start]
        self.held: frozenset[int] = frozenset()
        self._tree = tree

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
        tree = self._tree
        left = {*self.nodes, *self.held} - {self.start}
        made = []
        base = tree[self.start].cumulative_logprob
        above = [tree[node].seed for node in action.nodes]
        seeds = given_seeds(above, action.tokens)
        columns = zip(action.nodes, seeds, action.tokens, action.logprobs, strict=True)
        for parent, seed, token, logprob in columns:
            child, total = tree.add(parent, seed=seed), base + float(logprob)
            child.token_ids, child.text = [token], text_of(token)
            child.token_logprobs = [total - child.cumulative_logprob]
            child.cumulative_logprob, child.structured = total, action.structured
            made.append(child.id)
        self.nodes, self.held = made, frozenset(action.held)
        self._settle(left)

    def _settle(self, left: Iterable[int]) -> None:
        """Close what only its descendants need, prune what nothing needs."""
        for node in left:
            if node in self.held:
                self._tree[node].state = NodeState.IDLE
            elif self._leads_on(node):
                self._tree[node].state = NodeState.CLOSED
            else:
                self._prune(node)

    def _leads_on(self, node: int) -> bool:
        """Whether a child lives; children that the controller appended count too."""
        tree, children = self._tree, self._tree[node].children
        return bool(children) and any(
            tree[child].state is not NodeState.PRUNED for child in children
        )

    def _prune(self, node: int) -> None:
        """Prune a node that leads nowhere, and every ancestor that only led to it."""
        leads_on = False
        while not (leads_on or node == self.start or node in self.held):
            step = self._tree[node]
            step.state = NodeState.PRUNED
            assert step.parent is not None, "the front hangs below its start"
            node = step.parent
            leads_on = self._leads_on(node)
