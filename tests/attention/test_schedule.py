"""Schedules walked as kernels/hopper walks them, in float64, against the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention import METHODS, AttentionPlan, HeadShape, build_plan
from ramify.attention.plan.cost import CostTable, Tuning
from ramify.attention.plan.cut import STEP
from ramify.attention.plan.lower import DONE, PARTIAL, PIECE_OPEN, PIECE_PREFIX, PREFIX
from ramify.attention.plan.schedule import (
    PACKED_ROWS,
    Schedule,
    group_rows,
    make_schedule,
    windowed_read,
)
from ramify.attention.reference import tree_attention_ref
from ramify.core.forest import Forest
from ramify.testing.inputs import make_inputs
from ramify.testing.trees import RandomForestSpec, TreeCase, chains, few_shot, random_forest

HEAD_DIM = 8
GROUPS = (1, 3, 4, 7, 16)
ROOM = 8  # free slots behind each node, to grow into


def heads_of(group: int) -> HeadShape:
    return HeadShape(num_q_heads=group, num_kv_heads=1, head_dim=HEAD_DIM, itemsize=2)


class Walk:
    """One launch: workers take turns at random, each follows its links from unit to unit."""

    def __init__(self, schedule: Schedule, workers: int, group: int, seed: int, grown: int) -> None:
        self.s, self.group, self.grown = schedule, group, grown
        self.num_rows, _, self.merges_inside, num_merges, _ = schedule.header[:5].tolist()
        assert num_merges == len(schedule.merges)
        self.order = self._interleaved(workers, np.random.default_rng(seed))

    def _interleaved(self, workers: int, rng: np.random.Generator) -> list[int]:
        lists = []
        for worker in range(workers):
            rows, after, to_come = self.s.units[worker, [1, 14, 15]].tolist()
            assert rows or not to_come, "a worker without a first unit stops"
            lists.append([worker, *range(after, after + to_come)] if rows else [])
        turns = rng.permutation(np.repeat(np.arange(workers), [len(units) for units in lists]))
        ways = [iter(units) for units in lists]
        return [next(ways[worker]) for worker in turns.tolist()]

    def run(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q [Q, G, D], k and v [num_slots, D], float64."""
        shape, s = (self.num_rows, self.group, HEAD_DIM), self.s
        self.out, self.lse = q.new_full(shape, torch.nan), q.new_full(shape[:2], torch.nan)
        slots = (s.num_slots, self.group)
        self.part_out = q.new_full((*slots, HEAD_DIM), torch.nan)
        self.part_lse = q.new_full(slots, torch.nan)
        self.counters = [0] * len(s.expected)
        for unit in self.order:
            out, lse = self._attend(s.units[unit], q, k, v)
            self._store(s.units[unit], out, lse)
            if s.units[unit, 7] & PARTIAL and self.merges_inside:
                self._settle(s.units[unit])
        if not self.merges_inside:
            for merge in s.merges:
                self._merge(merge)
        return self.out, self.lse

    def tokens(self, unit: np.ndarray) -> list[tuple[int, int, int, int, int]]:
        """(slot, lo, hi, position, flags) of every token, pieces laid end to end."""
        pieces = self.s.pieces[unit[2] : unit[3]]
        if len(pieces):
            assert (unit[8:14] == pieces[0, :6]).all(), "a unit brings its first piece along"
        tokens = []
        for slot, length, lo, hi, position, flags, _, _ in pieces.tolist():
            grown = length + self.grown * bool(flags & PIECE_OPEN)
            tokens += [(slot + i, lo, hi, position + i, flags) for i in range(grown)]
        assert len(tokens) == unit[4] + self.grown * unit[5]
        return tokens

    def _attend(
        self, unit: np.ndarray, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        row0, rows, flags = unit[[0, 1, 7]].tolist()
        tokens = np.array(self.tokens(unit), dtype=np.int64).reshape(-1, 5)
        row = np.arange(row0, row0 + rows)[:, None]
        seen = (tokens[:, 1] <= row) & (row < tokens[:, 2])
        # positions are only looked up where the unit says that rows see prefixes
        position = self.s.row_position[row] + self.grown if flags & PREFIX else 0 * row
        seen &= (tokens[:, 3] <= position) | (tokens[:, 4] & PIECE_PREFIX == 0)
        mine = q[self.s.user_row[row0 : row0 + rows]]
        scores = torch.einsum("rgd,td->rgt", mine, k[tokens[:, 0]]) * HEAD_DIM**-0.5
        scores = scores.masked_fill(~torch.from_numpy(seen)[:, None], -torch.inf)
        lse = torch.logsumexp(scores, dim=-1)
        weight = torch.exp(scores - lse.where(lse > -torch.inf, 0.0)[..., None])
        return torch.einsum("rgt,td->rgd", weight, v[tokens[:, 0]]), lse

    def _store(self, unit: np.ndarray, out: torch.Tensor, lse: torch.Tensor) -> None:
        row0, rows, slot0, flags = unit[[0, 1, 6, 7]].tolist()
        for step, row in enumerate(range(row0, row0 + rows)):
            is_done = flags & DONE and (not flags & PARTIAL or self.s.row_units[row] == 1)
            place = int(self.s.user_row[row]) if is_done else slot0 + step
            outs, lses = (self.out, self.lse) if is_done else (self.part_out, self.part_lse)
            assert lses[place].isnan().all(), "every result is written once"
            outs[place], lses[place] = out[step], lse[step]

    def _settle(self, unit: np.ndarray) -> None:
        """Count the unit in; the one that completes a group of rows merges it."""
        size = group_rows(self.group)
        for place in range(unit[0] // size, (unit[0] + unit[1] - 1) // size + 1):
            assert self.s.expected[place] > 0
            self.counters[place] += 1
            if self.counters[place] < self.s.expected[place]:
                continue
            for row in range(place * size, min((place + 1) * size, self.num_rows)):
                if self.s.row_units[row] > 1:
                    self._merge(self.s.merges[self.s.row_merge[row]])

    def _merge(self, merge: np.ndarray) -> None:
        row, begin, end, _, *near = merge.tolist()
        slots = self.s.merge_slots[begin:end]
        assert end - begin > 1 and near[: end - begin] == slots[:4].tolist()
        assert (np.diff(slots) > 0).all(), "partials come in the order of the items"
        assert self.lse[row].isnan().all(), "every row is merged once"
        lse = self.part_lse[slots]
        assert not lse.isnan().any(), "a merge waits for every unit of its row"
        self.lse[row] = torch.logsumexp(lse, dim=0)
        weight = torch.exp(lse - self.lse[row].where(self.lse[row] > -torch.inf, 0.0))
        self.out[row] = (weight[..., None] * self.part_out[slots]).sum(dim=0)


def check(
    case: TreeCase,
    plan: AttentionPlan,
    schedule: Schedule,
    workers: int,
    group: int,
    *,
    seed: int = 0,
    grown: int = 0,
    later: Forest | None = None,
) -> None:
    walk = Walk(schedule, workers, group, seed, grown)
    used = [place for place, unit in enumerate(schedule.units) if unit[1]]
    assert sorted(walk.order) == used, "every unit belongs to one worker"
    assert (schedule.units[:, 1] * group <= max(PACKED_ROWS, group)).all()
    assert schedule.read_tokens == schedule.units[:, 4].sum() >= plan.read_tokens
    x = make_inputs(
        case, num_q_heads=group, num_kv_heads=1, head_dim=HEAD_DIM, seed=seed, dtype=torch.float64
    )
    out, lse = walk.run(x.q, x.k[:, 0], x.v[:, 0])
    exact = tree_attention_ref(x.q, x.k, x.v, later or case.forest)
    torch.testing.assert_close(out, exact[0])
    torch.testing.assert_close(lse, exact[1])
    if walk.merges_inside:
        assert walk.counters == schedule.expected.tolist()


SHAPES = st.builds(
    RandomForestSpec,
    num_roots=st.integers(1, 4),
    max_depth=st.integers(1, 12),
    max_fan_out=st.sampled_from([1, 3, 30]),
    max_nodes=st.integers(4, 40),
    max_length=st.sampled_from([1, 12, 90, 400]),
    num_rows=st.sampled_from([1, 5, 40, 200]),
)
TUNINGS = st.builds(
    Tuning,
    num_workers=st.integers(1, 20),
    packed_rows=st.sampled_from([32, 128]),
    fixed_cuts=st.sampled_from([None, None, 64, 100]),
    # a cheap merge and a dear one: lists are cut, or stay whole
    costs=st.sampled_from([CostTable(), CostTable(merge_us=0.0, unit_us=0.1)]),
)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spec=SHAPES,
    group=st.sampled_from(GROUPS),
    tuning=TUNINGS,
)
def test_a_walk_equals_the_reference(
    method: str, seed: int, spec: RandomForestSpec, group: int, tuning: Tuning
) -> None:
    case = random_forest(seed, spec)
    plan = build_plan(case.forest, method, heads=heads_of(group), tuning=tuning)
    schedule = make_schedule(plan, group, tuning.num_workers, tuning.costs)
    check(case, plan, schedule, tuning.num_workers, group, seed=seed % 1000)


ARRAYS = (
    "header units user_row row_position row_units expected merges merge_slots row_merge pieces"
).split()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spec=SHAPES, group=st.sampled_from(GROUPS), tuning=TUNINGS)
def test_what_lay_in_the_memory_before_does_not_matter(
    method: str, seed: int, spec: RandomForestSpec, group: int, tuning: Tuning
) -> None:
    plan = build_plan(
        random_forest(seed, spec).forest, method, heads=heads_of(group), tuning=tuning
    )

    def made(dirt: int, gap: int) -> Schedule:
        def room(sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
            assert list(sizes) == ARRAYS
            begin = np.cumsum([0, *(size + gap for size in sizes.values())])
            return np.full(begin[-1], dirt, dtype=np.int32), begin[:-1]

        return make_schedule(plan, group, tuning.num_workers, tuning.costs, room)

    one, other = made(-7, 0), made(1 << 30, 5)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def leaves_with_room(seed: int, max_length: int) -> tuple[Forest, Forest, int]:
    """A random forest with a row at the end of each leaf, the same after `ROOM` steps, slots."""
    base = random_forest(seed, RandomForestSpec(max_length=max_length, max_nodes=25)).forest
    rng = np.random.default_rng(seed)
    is_leaf = ~np.isin(np.arange(base.num_nodes), base.parent)
    length = np.maximum(base.length, is_leaf)
    begin = np.cumsum(length + ROOM + 1) - length - ROOM
    cut = rng.integers(0, length + 1)
    forests = []
    for grown in (0, ROOM):
        grows = grown * is_leaf
        # two runs per node, the second of which grows
        runs = [
            [(int(b), int(c)), (int(b + c), int(n - c + g))]
            for b, c, n, g in zip(begin, cut, length, grows, strict=True)
        ]
        runs = [[run for run in pair if run[1]] for pair in runs]
        rows = rng.permutation(np.flatnonzero(is_leaf)) if not forests else forests[0].query_node
        forests.append(Forest.from_nodes(base.parent, length + grows, None, rows, runs=runs))
    return forests[0], forests[1], int(begin[-1] + length[-1] + ROOM)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    max_length=st.sampled_from([1, 30, 300]),
    group=st.sampled_from(GROUPS),
    tuning=TUNINGS,
)
def test_a_grown_walk_equals_the_reference_on_the_grown_forest(
    method: str, seed: int, max_length: int, group: int, tuning: Tuning
) -> None:
    forest, later, num_slots = leaves_with_room(seed, max_length)
    plan = build_plan(forest, method, heads=heads_of(group), tuning=tuning)
    assert plan.can_grow
    schedule = make_schedule(plan, group, tuning.num_workers, tuning.costs)
    assert schedule.num_open == forest.num_rows
    case = TreeCase(forest=later, num_slots=num_slots)
    workers = tuning.num_workers
    check(case, plan, schedule, workers, group, seed=seed % 1000, grown=ROOM, later=later)


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_see_nothing_are_units_without_tokens(method: str) -> None:
    forest = Forest.from_nodes([-1, -1], [3, 0], [0, 3], [1, 0, 0, 1, 1], [0, 3, 0, 0, 0])
    for workers in (1, 2, 20):
        plan = build_plan(forest, method, tuning=Tuning(num_workers=workers))
        schedule = make_schedule(plan, 4, workers)
        assert (schedule.units[:, 4] == 0).sum() - max(workers - 5, 0) >= 4
        check(TreeCase(forest=forest, num_slots=4), plan, schedule, workers, 4)


def test_a_forest_without_rows_is_a_schedule_without_units() -> None:
    for forest in (Forest.from_nodes([], [], [], []), Forest.from_nodes([-1], [3], [0], [])):
        schedule = make_schedule(build_plan(forest, "fused"), 4, 3)
        assert len(schedule.units) == 3 and not schedule.units[:, 1].any()
        assert not schedule.needs_merge and windowed_read(schedule, 5) == 0


def test_merges_inside_the_launch_are_for_units_of_few_rows() -> None:
    one = Forest.from_nodes([-1], [100_000], [0], [0])
    light = make_schedule(build_plan(one, "fused", tuning=Tuning()), 4, 16)
    assert light.header[2] and not light.needs_merge and light.expected.tolist() == [16]
    many = make_schedule(build_plan(few_shot(32, 50_000, 9).forest, "fused"), 4, 16)
    assert not many.header[2] and many.needs_merge
    alone = make_schedule(build_plan(chains(64, 100).forest, "node"), 4, 16)
    assert not alone.needs_merge and alone.num_slots == 0


def test_units_of_a_row_are_what_the_groups_expect() -> None:
    case = random_forest(3, RandomForestSpec(num_rows=90, max_length=200))
    plan = build_plan(case.forest, "node", heads=heads_of(1))
    schedule = make_schedule(plan, 1, 5)
    count: Counter[int] = Counter()
    for row0, rows in schedule.units[:, :2].tolist():
        count.update(range(row0, row0 + rows))
    for row in range(90):
        sees_nothing = schedule.row_units[row] == 0
        assert count[row] == schedule.row_units[row] + sees_nothing


def loaded(walk: Walk, window: int) -> int:
    """Stages of 64 tokens; one that lies in a single piece and that no row sees is passed over."""
    total = 0
    for place in walk.order:
        unit = walk.s.units[place]
        oldest = walk.s.row_position[unit[0] : unit[0] + unit[1]].min() + walk.grown - window + 1
        tokens = walk.tokens(unit)
        piece = np.repeat(
            np.arange(unit[2], unit[3]),
            [
                length + walk.grown * bool(flags & PIECE_OPEN)
                for length, flags in walk.s.pieces[unit[2] : unit[3], [1, 5]].tolist()
            ],
        )
        for begin in range(0, len(tokens), STEP):
            stage = tokens[begin : begin + STEP]
            is_one = len(stage) == STEP and len(set(piece[begin : begin + STEP].tolist())) == 1
            if not (is_one and stage[-1][3] < oldest):
                total += len(stage)
    return total


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    max_length=st.sampled_from([1, 70, 500]),
    window=st.sampled_from([1, 40, 300, 10_000]),
    grown=st.sampled_from([0, 3]),
    tuning=TUNINGS,
)
def test_what_a_window_loads_is_counted_stage_by_stage(
    method: str, seed: int, max_length: int, window: int, grown: int, tuning: Tuning
) -> None:
    if grown:
        forest, _, _ = leaves_with_room(seed, max_length)
    else:
        forest = random_forest(seed, RandomForestSpec(max_length=max_length, num_rows=60)).forest
    plan = build_plan(forest, method, heads=heads_of(4), tuning=tuning)
    schedule = make_schedule(plan, 4, tuning.num_workers)
    read = windowed_read(schedule, window, grown=grown)
    assert read == loaded(Walk(schedule, tuning.num_workers, 4, 0, grown), window)
    if window == 10_000:
        assert read == schedule.read_tokens + grown * schedule.num_open


def test_a_long_context_costs_its_window_and_the_rest_of_a_stage() -> None:
    forest = Forest.from_nodes([-1], [100_000], [0], [0])
    schedule = make_schedule(build_plan(forest, "node"), 4, 16)
    assert 4096 <= windowed_read(schedule, 4096) <= 4096 + STEP
