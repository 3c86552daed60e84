"""A grafted forest against the paths of its tokens, slot by slot."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ramify.core.forest import Forest
from ramify.engine.speculation.graft import Graft, grafted, grown
from ramify.engine.speculation.joint import joint_of
from ramify.engine.speculation.shape import ROOT, shape_of


def slots_seen(forest: Forest, row: int) -> list[int]:
    """Slots that a row sees, from the root of its path on."""
    node, seen = int(forest.query_node[row]), int(forest.query_len[row])
    found: list[int] = []
    while node >= 0:
        runs = range(forest.run_indptr[node], forest.run_indptr[node + 1])
        spans = [np.arange(forest.run_len[r]) + forest.run_begin[r] for r in runs]
        own = np.concatenate(spans)[:seen].tolist()
        found = own + found
        node = int(forest.parent[node])
        seen = int(forest.length[node]) if node >= 0 else 0
    return found


@given(st.data())
def test_rows_of_drafts_see_their_tip_and_their_ancestors(data: st.DataObject) -> None:
    base = Forest.from_nodes([-1, 0, 0], [4, 2, 3], [0, 10, 20], [2, 1], [3, 2])
    free = data.draw(st.permutations(range(100, 160)))
    grafts, wanted, first = [], [], base.num_rows
    for tip in data.draw(st.permutations([0, 1]))[: data.draw(st.integers(0, 2))]:
        size = data.draw(st.integers(1, 20))
        parents = tuple(data.draw(st.integers(-1, i - 1)) for i in range(size))
        shape = shape_of(parents)
        # as from a pool in good order, or anywhere
        slots = [free.pop() for _ in range(size)]
        slots = np.array(sorted(slots) if data.draw(st.booleans()) else slots)
        graft = Graft(tip, first, (7,) * size, int(base.path_len[tip]), shape, slots)
        grafts.append(graft)
        first += size
        for token in range(size):
            path, at = [], token
            while at != ROOT:
                path.append(int(slots[shape.place[at]]))
                at = parents[at]
            wanted.append(slots_seen(base, tip) + path[::-1])
    forest = grafted(base, grafts)
    forest.validate()
    assert [slots_seen(forest, row) for row in range(2, forest.num_rows)] == wanted
    assert [slots_seen(forest, row) for row in (0, 1)] == [slots_seen(base, row) for row in (0, 1)]
    for graft in grafts:
        rows = slice(graft.first_row, graft.first_row + len(graft.tokens))
        assert np.array_equal(forest.row_position[rows], graft.positions)
        lasts = [slots_seen(forest, row)[-1] for row in range(forest.num_rows)[rows]]
        assert lasts == graft.row_slots.tolist()


@given(st.data())
def test_rows_see_what_their_nodes_are_lengthened_by(data: st.DataObject) -> None:
    base = Forest.from_nodes([-1, 0, 0], [4, 2, 3], [0, 10, 20], [2, 1], [3, 2])
    free = data.draw(st.permutations(range(100, 130)))
    slots, wanted = [], []
    for row, behind in enumerate((23, 12)):
        size = data.draw(st.integers(1, 6))
        line = [behind + place for place in range(size)]
        others = [free.pop() for _ in range(size)]
        straight = data.draw(st.integers(0, size))
        slots.append(np.array(line[:straight] + others[straight:]))
        wanted.append(slots_seen(base, row) + slots[-1].tolist())
    count = np.array([len(own) for own in slots])
    nobody = np.empty(0, dtype=np.int64)
    forest = grown(base, count, np.concatenate(slots), joint_of(()), nobody, nobody)
    forest.validate()
    assert [slots_seen(forest, row) for row in (0, 1)] == wanted
    runs = np.diff(forest.run_indptr)
    assert (forest.run_len > 0).all() and runs[0] == 1
