"""Draft trees, and what a drafter is: guesses of the tokens that follow a branch.

A drafter never decides what a branch says. Its guesses become rows of the branch's next step, and
those that the model itself would have drawn are kept (verify.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.engine.speculation.shape import ROOT, DraftShape, shape_of


class DraftContext(NamedTuple):
    """A branch that wants a draft. `token_ids` is a view that is valid during the call only."""

    branch: Hashable  # the same in all steps of a branch
    token_ids: np.ndarray  # [length] int64, the whole path, prompt included
    params: SamplingParams
    seed: int
    max_tokens: int
    max_depth: int


class Drafter(Protocol):
    """Guesses what follows. Trees beyond a context's limits are cut to them."""

    def propose(self, contexts: Sequence[DraftContext]) -> Sequence[DraftTree]:
        """A draft for each branch; empty where there is no guess."""
        ...

    def learn(self, token_ids: Sequence[int]) -> None:
        """Hear of a finished path, prompt included."""
        ...


@runtime_checkable
class ReadsHidden(Protocol):
    """A drafter that guesses from the model's own last hidden states."""

    def observe(self, branches: Sequence[tuple[Hashable, int]], hidden: Tensor) -> None:
        """Hear of a step; what was heard before is out of date.

        Args:
            branches: each with the length of its path, its newest token included.
            hidden: [n, hidden], for each branch the state that its newest token was drawn from.
        """
        ...


@dataclass(frozen=True, slots=True)
class DraftTree:
    """Tokens with the index of their parents, which come first; ROOT hangs below the branch."""

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    @classmethod
    def from_continuations(
        cls, paths: Iterable[Sequence[int]], max_tokens: int, max_depth: int
    ) -> DraftTree:
        """Merge continuations, of which the first are wanted most, level by level within limits."""
        found = [[int(token) for token in path[:max_depth]] for path in paths]
        index: dict[tuple[int, ...], int] = {(): ROOT}
        tokens: list[int] = []
        parents: list[int] = []
        for depth in range(1, max(map(len, found), default=0) + 1):
            for path in (tuple(path[:depth]) for path in found if len(path) >= depth):
                if path not in index and path[:-1] in index and len(tokens) < max_tokens:
                    index[path] = len(tokens)
                    tokens.append(path[-1])
                    parents.append(index[path[:-1]])
        return cls(tuple(tokens), tuple(parents))

    def checked(self, vocab_size: int, max_tokens: int, max_depth: int) -> DraftTree:
        """The tree within limits, each token once below its parent.

        Raises InputError: a token outside the vocabulary, or a parent that does not come before.
        """
        _check(self, vocab_size)
        if self._is_within(max_tokens, max_depth):
            return self
        index: dict[tuple[int, int], int] = {}
        place: list[int | None] = []  # of each token in the new tree; None where it was cut
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        for token, parent in zip(self.tokens, self.parents, strict=True):
            above = ROOT if parent == ROOT else place[parent]
            depth = 1 if above is None or above == ROOT else depths[above] + 1
            if above is None or depth > max_depth:
                place.append(None)
                continue
            known = index.get((above, token))
            if known is None and len(tokens) < max_tokens:
                known = index[above, token] = len(tokens)
                tokens.append(int(token))
                parents.append(above)
                depths.append(depth)
            place.append(known)
        return DraftTree(tuple(tokens), tuple(parents))

    def _is_within(self, max_tokens: int, max_depth: int) -> bool:
        """Whether nothing has to be cut or merged."""
        if not 0 < len(self.tokens) <= max_tokens or self.shape.depth.max() > max_depth:
            return False
        if len(set(self.tokens)) == len(self.tokens):  # one look at tokens that all differ
            return True
        return len(set(zip(self.parents, self.tokens, strict=True))) == len(self.tokens)

    @property
    def shape(self) -> DraftShape:
        """What follows from the parents alone."""
        return shape_of(self.parents)


def _check(tree: DraftTree, vocab_size: int) -> None:
    if len(tree.tokens) != len(tree.parents):
        got = f"{len(tree.tokens)} tokens, {len(tree.parents)} parents"
        raise InputError(expected_got("draft", "a parent for every token", got))
    if _is_plain(tree, vocab_size):
        return
    for index, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        is_int = isinstance(token, int | np.integer) and not isinstance(token, bool)
        if not is_int or not 0 <= token < vocab_size:
            allowed = f"a token id in [0, {vocab_size})"
            raise InputError(expected_got("draft token", allowed, repr(token)))
        if not ROOT <= parent < index:
            allowed = f"a parent in [-1, {index}) for token {index}"
            raise InputError(expected_got("draft", allowed, parent))


def _is_plain(tree: DraftTree, vocab_size: int) -> bool:
    """Whether a glance at all tokens shows that each is right; a draft may have hundreds."""
    if not tree.tokens or {*map(type, tree.tokens), *map(type, tree.parents)} != {int}:
        return False
    is_inside = min(tree.tokens) >= 0 and max(tree.tokens) < vocab_size
    return is_inside and _come_first(tree.parents)


@lru_cache(maxsize=256)
def _come_first(parents: tuple[int, ...]) -> bool:
    """Whether each parent comes before its token, or is ROOT; known of shapes drafted before."""
    above = np.array(parents)
    return above.min() >= ROOT and bool((above < np.arange(len(above))).all())
