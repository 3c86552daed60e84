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
from ramify.core.jit import njit
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
        is_plain = _is_plain(self, vocab_size)
        if not is_plain:
            _check(self, vocab_size)
        elif 0 < len(self.tokens) <= max_tokens and self.shape.height <= max_depth:
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

    @property
    def shape(self) -> DraftShape:
        """What follows from the parents alone."""
        return shape_of(self.parents)


def _check(tree: DraftTree, vocab_size: int) -> None:
    if len(tree.tokens) != len(tree.parents):
        got = f"{len(tree.tokens)} tokens, {len(tree.parents)} parents"
        raise InputError(expected_got("draft", "a parent for every token", got))
    for index, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        is_int = isinstance(token, int | np.integer) and not isinstance(token, bool)
        if not is_int or not 0 <= token < vocab_size:
            allowed = f"a token id in [0, {vocab_size})"
            raise InputError(expected_got("draft token", allowed, repr(token)))
        if not ROOT <= parent < index:
            allowed = f"a parent in [-1, {index}) for token {index}"
            raise InputError(expected_got("draft", allowed, parent))


def _is_plain(tree: DraftTree, vocab_size: int) -> bool:
    """Whether a glance shows that each token is right, and once below its parent.

    A draft may have hundreds, and the device waits for it.
    """
    if len(tree.tokens) != len(tree.parents) or {*map(type, tree.tokens)} != {int}:
        return False
    tokens = np.array(tree.tokens)
    if tokens.dtype != np.int64 or not _come_first(tree.parents):
        return False
    return bool(_differ(tokens, tree.shape.sibling, vocab_size))


@lru_cache(maxsize=256)
def _come_first(parents: tuple[int, ...]) -> bool:
    """Whether each parent comes before its token, or is ROOT; known of shapes drafted before."""
    if {*map(type, parents)} != {int}:
        return False
    above = np.array(parents)
    return above.min() >= ROOT and bool((above < np.arange(len(above))).all())


@njit
def _differ(tokens, sibling, vocab_size):  # type: ignore[no-untyped-def]
    """Whether tokens are in the vocabulary, and no two siblings are the same."""
    for i in range(len(tokens)):
        if tokens[i] < 0 or tokens[i] >= vocab_size:
            return False
        other = sibling[i]
        while other >= 0:
            if tokens[other] == tokens[i]:
                return False
            other = sibling[other]
    return True
