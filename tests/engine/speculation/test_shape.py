"""The arrays of a draft tree against its paths spelled out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.shape import ROOT, shape_of


def test_lines_are_cut_where_the_tree_forks_and_the_first_child_follows_at_once() -> None:
    tree = DraftTree.from_continuations([[1, 2, 3, 4], [1, 2, 5, 6], [7, 8]], 9, 9)
    shape = tree.shape
    order = np.argsort(shape.place)
    assert [tree.tokens[i] for i in order] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert shape.line[order].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert shape.line_above.tolist() == [ROOT, 0, 0, ROOT]


@given(st.data())
def test_a_token_sees_the_lines_above_it_and_its_own_up_to_itself(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 30))
    parents = tuple(data.draw(st.integers(-1, i - 1)) for i in range(size))
    shape = shape_of(parents)
    starts = np.cumsum(shape.line_len) - shape.line_len
    token_at = np.argsort(shape.place)
    assert np.array_equal(shape.place[token_at], np.arange(size))
    assert np.array_equal(shape.place[shape.line_end], starts + shape.line_len - 1)
    for token in range(size):
        path, at = [], token
        while at != ROOT:
            path.append(at)
            at = parents[at]
        line = int(shape.line[token])
        found = token_at[starts[line] : starts[line] + shape.seen[token]].tolist()
        while (line := int(shape.line_above[line])) != ROOT:
            found = token_at[starts[line] : starts[line] + shape.line_len[line]].tolist() + found
        assert found == path[::-1] and shape.depth[token] == len(path)
        below = [child for child in range(size) if parents[child] == token]
        assert list(shape.children.get(token, ())) == below
