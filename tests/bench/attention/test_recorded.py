"""Recorded states: rows and tokens are those of the recording, drafts see their ancestors."""

from __future__ import annotations

import pytest

from ramify.bench.attention.recorded import draft_state, recorded_state
from ramify.core.errors import InputError
from ramify.search.drafts import RecordedDrafts
from ramify.search.recorded import RecordedNode, check_tree


def _node(id, value, start, end, *children):
    return RecordedNode(id=id, value=value, start=start, end=end, children=list(children))


def test_recorded_state_counts_what_is_live():
    nodes = [_node(0, 6, -5, 0, 1, 2), _node(1, 2, 1, 2), _node(2, 3, 1, 3)]
    recorded = check_tree({str(n.id): n for n in nodes})
    for iteration in range(recorded.num_iterations):
        forest = recorded_state(recorded, iteration).forest()
        assert forest.num_rows == recorded.rows_at(iteration)
        assert forest.unique_tokens == recorded.live_tokens_at(iteration)
    with pytest.raises(InputError, match="iteration"):
        recorded_state(recorded, recorded.num_iterations)


def test_drafted_tokens_see_the_context_and_their_ancestors():
    drafts = RecordedDrafts(parent=(-1, 0, 1, 0), accepted=((2,),))
    forest = draft_state(drafts, 10).forest()
    # in depth-first order: the root, its first child, the grandchild, the second child
    assert forest.path_len.tolist() == [11, 12, 13, 12]
    assert forest.unique_tokens == 14
    with pytest.raises(InputError, match="context"):
        draft_state(drafts, 0)
