"""Open thoughts of a tree search, and in which order they deserve the next tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ramify.search.thought import Thought


class Frontier:
    """Every thought that may still be expanded, chosen from best first."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._thoughts: dict[int, Thought] = {}

    def add(self, thought: Thought) -> None:
        """Take a thought in, unless its level allows no further step."""
        if thought.level < self._depth:
            self._thoughts[thought.node] = thought

    def discard(self, node: int) -> None:
        """Forget a thought."""
        self._thoughts.pop(node, None)

    def __iter__(self) -> Iterator[Thought]:
        return iter(self._thoughts.values())

    def best(self, width: int, among: Iterable[Thought] | None = None) -> list[Thought]:
        """At most `width` thoughts, best first; ties: least expanded, deepest, most probable."""

        def rank(thought: Thought) -> tuple[float, ...]:
            return (
                -thought.priority(self._depth),
                thought.num_expansions,
                -thought.level,
                -thought.logprob,
                thought.node,
            )

        return sorted(self if among is None else among, key=rank)[:width]
