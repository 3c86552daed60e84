"""Draft trees: what is merged, cut and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify import InputError
from ramify.engine.speculation.draft import ROOT, DraftTree


def paths_of(tree: DraftTree) -> list[tuple[int, ...]]:
    """The path of each token, spelled out."""
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append((*(paths[parent] if parent != ROOT else ()), token))
    return paths


def test_continuations_share_what_they_have_in_common() -> None:
    tree = DraftTree.from_continuations([[1, 2, 3], [1, 4], [1, 2], [5], []], 9, 9)
    assert paths_of(tree) == [(1,), (5,), (1, 2), (1, 4), (1, 2, 3)]
    # narrow levels first, then the depth
    assert paths_of(DraftTree.from_continuations([[1, 2, 3], [4, 5]], 3, 2)) == [(1,), (4,), (1, 2)]


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.randoms(use_true_random=False),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_a_checked_tree_is_within_limits_and_has_no_path_twice(
    tokens: list[int], rng: object, most: int, depth: int
) -> None:
    parents = tuple(rng.randint(-1, i - 1) for i in range(len(tokens)))  # type: ignore[attr-defined]
    given_tree = DraftTree(tuple(tokens), parents)
    paths = paths_of(given_tree.checked(4, most, depth))
    assert len(paths) == len(set(paths)) <= most
    assert set(paths) <= set(paths_of(given_tree))
    assert all(len(path) <= depth for path in paths)
    if most >= len(tokens):
        assert set(paths) == {path for path in paths_of(given_tree) if len(path) <= depth}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (DraftTree((4,), (-1,)), r"draft token: expected a token id in \[0, 4\), got 4"),
        (DraftTree((-1,), (-1,)), "got -1"),
        (DraftTree((True,), (-1,)), "got True"),
        (DraftTree((1, 2), (-1, 1)), r"expected a parent in \[-1, 1\) for token 1, got 1"),
        (DraftTree((1, 2), (-1,)), "expected a parent for every token, got 2 tokens, 1 parents"),
    ],
)
def test_what_is_no_tree_over_the_vocabulary_is_refused(tree: DraftTree, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tree.checked(4, 9, 9)
