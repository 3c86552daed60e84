"""Policies as tables: a view in, a decision out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.scheduling import POLICIES, Decision, KvView, TaskView, View, make_policy


def task(task_id: int, pending: int, held: int = 0) -> TaskView:
    return TaskView(id=task_id, request=task_id, arrival=task_id, pending=pending, held=held)


def waits(task_id: int, pending: int, cached: int) -> TaskView:
    """A prompt of `pending` tokens that the prefix cache knows in part."""
    return TaskView(id=task_id, request=task_id, arrival=task_id, pending=pending, cached=cached)


def view(waiting: list[TaskView], running: list[TaskView], available: int) -> View:
    kv = KvView(total=1000, available=available)
    return View(now_s=0.0, waiting=waiting, running=running, kv=kv)


def items(decision: Decision) -> list[tuple[int, int]]:
    return [item for work in decision.works for item in work.items]


ONE_ROW_EACH = [(1, 1), (2, 1)]
FCFS = [
    ("idle", [], [], 100, [], []),
    ("decodes run together", [], [task(0, 1), task(1, 1)], 100, [(0, 1), (1, 1)], []),
    ("a prompt is cut to the rows left", [], [task(0, 1), task(1, 50)], 100, [(0, 1), (1, 7)], []),
    (
        "a short prompt is admitted beside decodes",
        [task(1, 3)],
        [task(0, 1)],
        100,
        [(0, 1), (1, 3)],
        [],
    ),
    ("prompts queue in order", [task(1, 9), task(2, 1)], [], 100, [(1, 8)], []),
    ("no overtaking: the head does not fit", [task(1, 9), task(2, 1)], [], 5, [], []),
    ("a running prompt's tokens are spoken for", [task(1, 5)], [task(0, 50)], 54, [(0, 8)], []),
    ("cached tokens take no row", [waits(1, 50, 49), waits(2, 50, 50)], [], 100, ONE_ROW_EACH, []),
    ("but their slots count", [waits(1, 50, 49), waits(2, 50, 50)], [], 99, [(1, 1)], []),
    ("a repeated row needs no slot", [task(1, 0)], [], 0, [(1, 1)], []),
    ("the youngest is preempted", [], [task(0, 1), task(1, 1, 3)], 1, [(0, 1)], [1]),
    (
        "nobody is admitted into a shortage",
        [task(2, 1)],
        [task(0, 1), task(1, 1, 9)],
        1,
        [(0, 1)],
        [1],
    ),
    ("the last one is never preempted", [], [task(0, 1, 5)], 0, [(0, 1)], []),
]


@pytest.mark.parametrize(
    ("waiting", "running", "available", "wanted", "preempted"),
    [case[1:] for case in FCFS],
    ids=[case[0] for case in FCFS],
)
def test_fcfs(
    waiting: list[TaskView],
    running: list[TaskView],
    available: int,
    wanted: list[tuple[int, int]],
    preempted: list[int],
) -> None:
    decision = make_policy("fcfs", max_rows=8).decide(view(waiting, running, available))
    assert items(decision) == wanted
    assert list(decision.preempt) == preempted


def test_prefill_first_runs_prompts_alone_then_decodes() -> None:
    policy = make_policy("prefill_first", max_rows=8)
    decodes = [task(0, 1), task(1, 1)]
    mixed = view([task(3, 4)], [*decodes, task(2, 3)], 100)
    assert items(policy.decide(mixed)) == [(2, 3), (3, 4)]
    assert items(policy.decide(view([], decodes, 100))) == [(0, 1), (1, 1)]
    # a prompt that must wait for slots does not hold up decoding
    assert items(policy.decide(view([task(3, 50)], decodes, 20))) == [(0, 1), (1, 1)]


tasks = st.builds(task, st.integers(0, 10_000), st.integers(0, 60), st.integers(0, 30))
unique = {"unique_by": lambda t: t.id}


@given(
    name=st.sampled_from(sorted(POLICIES)),
    every=st.lists(tasks, max_size=12, **unique),
    split=st.integers(0, 12),
    available=st.integers(0, 120),
    max_rows=st.integers(1, 40),
)
def test_invariants(
    name: str, every: list[TaskView], split: int, available: int, max_rows: int
) -> None:
    """Every decision is valid, stays inside rows and slots, and is the same when asked again."""
    ordered = sorted(every, key=lambda t: t.id)
    running, waiting = ordered[:split], ordered[split:]
    now = view(waiting, running, available)
    policy = make_policy(name, max_rows=max_rows)
    decision = policy.decide(now)
    assert decision == policy.decide(now)
    known = {t.id: t for t in ordered}
    chosen = items(decision)
    assert len({i for i, _ in chosen}) == len(chosen)
    assert not {i for i, _ in chosen} & set(decision.preempt)
    assert set(decision.preempt) <= {t.id for t in running}
    assert all(1 <= rows <= known[i].rows for i, rows in chosen)
    decoding = {t.id for t in running if t.is_decode}
    assert sum(rows for i, rows in chosen if i not in decoding) <= max_rows
    slots = available + sum(known[i].held for i in decision.preempt)
    needed = sum(min(rows, known[i].pending) for i, rows in chosen)
    assert needed <= slots or len(chosen) == 1
    assert chosen or not running or any(not t.is_decode for t in running)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(InputError, match=r"policy: expected one of fcfs, prefill_first, got 'x'"):
        make_policy("x", max_rows=1)
