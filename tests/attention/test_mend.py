"""Mended plans: each row sees the slots of its path, once, and cuts stay what they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import AttentionPlan
from ramify.attention.plan.build import build_plan
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.mend import MOST_GROWN, mend_plan
from ramify.core.forest import Forest

TUNINGS = st.builds(
    Tuning, num_workers=st.integers(1, 9), packed_rows=st.sampled_from([16, 64, 128])
)


def slots_seen(plan: AttentionPlan, place: int) -> list[int]:
    """Slots whose tokens an ordered row sees by the plan, sorted."""
    seen: list[int] = []
    position = plan.row_position[place]
    for item in range(plan.num_items):
        if not plan.item_lo[item] <= place < plan.item_hi[item]:
            continue
        for i in range(plan.item_indptr[item], plan.item_indptr[item + 1]):
            if plan.piece_lo[i] <= place < plan.piece_hi[i]:
                count = min(plan.piece_len[i], position + 1 - plan.piece_position[i])
                seen += range(plan.piece_slot[i], plan.piece_slot[i] + max(count, 0))
    return sorted(seen)


def path_slots(forest: Forest, row: int) -> list[int]:
    """Slots that a row sees by the forest, sorted."""
    node, count = int(forest.query_node[row]), int(forest.query_len[row])
    seen: list[int] = []
    while node >= 0:
        own: list[int] = []
        for run in range(forest.run_indptr[node], forest.run_indptr[node + 1]):
            own += range(forest.run_begin[run], forest.run_begin[run] + forest.run_len[run])
        seen += own[:count]
        node = int(forest.parent[node])
        count = int(forest.length[node])
    return sorted(seen)


def laid(
    parent: list[int], runs: list[list[int]], rows: list[tuple[int, int]], seed: int
) -> Forest:
    """A forest with runs of given lengths, anywhere in the cache."""
    sizes = [size for own in runs for size in own]
    order = np.random.default_rng(seed).permutation(len(sizes))
    begin = np.zeros(len(sizes), dtype=np.int64)
    begin[order] = np.cumsum([0, *(sizes[i] + 1 for i in order[:-1])])
    starts = iter(begin.tolist())
    placed = [[(next(starts), size) for size in own] for own in runs]
    nodes, seen = zip(*rows, strict=True)
    return Forest.from_nodes(parent, [sum(own) for own in runs], None, nodes, seen, runs=placed)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), tuning=TUNINGS, method=st.sampled_from(["fused", "lean"]))
def test_rows_see_their_paths_in_a_forest_that_grew(
    data: st.DataObject, tuning: Tuning, method: str
) -> None:
    size = data.draw(st.integers(1, 12))
    parent = [data.draw(st.integers(-1, node - 1)) for node in range(size)]
    lens = st.lists(st.sampled_from([1, 2, 40, 200]), min_size=1, max_size=3)
    runs = [data.draw(lens) for _ in range(size)]
    length = [sum(own) for own in runs]
    rows = []
    for _ in range(data.draw(st.integers(1, 12))):
        node = data.draw(st.integers(0, size - 1))
        rows.append((node, data.draw(st.sampled_from([length[node], length[node], 1]))))
    before = laid(parent, runs, rows, 0)
    growth = [data.draw(st.sampled_from([0, 0, 1, 5, MOST_GROWN])) for _ in range(size)]
    later = [(n, s + (growth[n] if s == length[n] else 0)) for n, s in rows]
    longer = [[*own[:-1], own[-1] + more] for own, more in zip(runs, growth, strict=True)]
    after = laid(parent, longer, later, 1)

    plan = build_plan(before, method, tuning=tuning)
    mended = mend_plan(plan, before, after)
    assert mended is not None
    for place, row in enumerate(mended.row_order.tolist()):
        assert slots_seen(mended, place) == path_slots(after, row)
    fresh = build_plan(after, method, tuning=tuning)
    for name in ("unique_tokens", "path_tokens", "per_branch_tokens", "can_grow", "num_rows"):
        assert getattr(mended, name) == getattr(fresh, name), name
    np.testing.assert_array_equal(mended.row_position, fresh.row_position)
    causal = mended.row_position[mended.piece_lo] < mended.piece_position + mended.piece_len - 1
    np.testing.assert_array_equal(mended.piece_causal, causal)
    assert mended.parts.items is plan.parts.items
    # a plan of the same forest is the plan itself
    again = mend_plan(plan, before, before)
    assert again is not None
    np.testing.assert_array_equal(again.parts.columns, plan.parts.columns)


def test_what_is_no_growth_of_tips_is_not_mended() -> None:
    base = Forest.from_nodes([-1, 0, 0], [6, 2, 3], [0, 10, 20], [1, 2], [2, 3])
    plan = build_plan(base, "fused")
    assert mend_plan(plan, base, base) is not None
    others = {
        "another row": Forest.from_nodes([-1, 0, 0], [6, 2, 3], [0, 10, 20], [2, 1], [3, 2]),
        "another parent": Forest.from_nodes([-1, 0, 1], [6, 2, 3], [0, 10, 20], [1, 2], [2, 3]),
        "a shorter tip": Forest.from_nodes([-1, 0, 0], [6, 1, 3], [0, 10, 20], [1, 2], [1, 3]),
        "a tip that the row does not see": replace(
            base,
            length=base.length + np.array([0, 0, 1]),
            run_len=base.run_len + np.array([0, 0, 1]),
        ),
        "too many tokens": base.grown(MOST_GROWN + 1),
        "one row": Forest.from_nodes([-1, 0, 0], [6, 2, 3], [0, 10, 20], [1], [2]),
        "two runs": Forest.from_nodes(
            [-1, 0, 0],
            [6, 2, 3],
            None,
            [1, 2],
            [2, 3],
            runs=[[(0, 4), (5, 2)], [(10, 2)], [(20, 3)]],
        ),
    }
    for name, other in others.items():
        assert mend_plan(plan, base, other) is None, name
