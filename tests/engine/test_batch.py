"""A step's rows: shared tokens once, chunks, probes, and who wants which logits."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.cache import Cursor, TokenTree
from ramify.core.errors import OutOfSlots
from ramify.engine.batch import BatchBuilder, StepBatch

SCRATCH = 100


def compute(cache: TokenTree, *cursors: Cursor) -> StepBatch:
    """Schedule, build and commit everything pending on some paths."""
    builder = BatchBuilder(cache, SCRATCH)
    for cursor in cursors:
        assert builder.schedule(cursor, 1000, owner=0)
    batch = builder.build()
    builder.commit()
    return batch


def test_tokens_shared_by_two_paths_are_rows_once() -> None:
    cache = TokenTree(100)
    one = cache.open([1, 2, 3])
    two = cache.fork(one)
    cache.append(one, [4])
    cache.append(two, [5, 6])
    builder = BatchBuilder(cache, SCRATCH)
    assert builder.schedule(one, 10, owner=0)
    assert builder.schedule(two, 10, owner=1)
    batch = builder.build()
    assert batch.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.positions.tolist() == [0, 1, 2, 3, 3, 4]
    assert len(set(batch.slots.tolist())) == 6 and SCRATCH not in batch.slots
    assert batch.forest.path_len.tolist() == [1, 2, 3, 4, 4, 5]
    assert [block.owner for block in builder.blocks] == [0, 0, 1]


def test_a_path_is_computed_in_chunks_top_down() -> None:
    cache = TokenTree(100)
    cursor = cache.open(list(range(10)))
    seen = []
    for wanted in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9]):
        builder = BatchBuilder(cache, SCRATCH)
        is_whole = builder.schedule(cursor, 4, owner=0)
        assert builder.build().token_ids.tolist() == wanted
        builder.commit()
        seen.append(is_whole)
    assert seen == [False, False, True]
    assert cache.pending(cursor) == 0


def test_a_computed_row_is_asked_again_without_writing_its_slot() -> None:
    cache = TokenTree(100)
    cursor = cache.open([1, 2, 3])
    compute(cache, cursor)
    own = set(cache.slots_of(cursor.node).tolist())
    builder = BatchBuilder(cache, SCRATCH)
    assert builder.schedule(cursor, 5, owner=0)
    assert builder.logits_at(cursor, [1, 2], owner=0) == {1: 0, 2: 1}
    assert builder.logits_at(cursor, [2], owner=1) == {2: 1}, "a probe is shared"
    batch = builder.build()
    assert batch.slots.tolist() == [SCRATCH, SCRATCH]
    assert batch.token_ids.tolist() == [2, 3]
    assert batch.forest.path_len.tolist() == [2, 3]
    assert own == set(cache.slots_of(cursor.node).tolist())


def test_logits_of_tokens_that_are_not_computed_yet_are_left_out() -> None:
    cache = TokenTree(100)
    cursor = cache.open([1, 2, 3, 4])
    builder = BatchBuilder(cache, SCRATCH)
    assert not builder.schedule(cursor, 2, owner=0)
    assert builder.logits_at(cursor, [0, 1, 2, 3], owner=0) == {0: 0, 1: 1}


def test_logits_rows_index_the_rows_that_were_asked_for() -> None:
    cache = TokenTree(100)
    one = cache.open([1, 2, 3])
    two = cache.fork(one)
    cache.append(two, [7])
    builder = BatchBuilder(cache, SCRATCH)
    assert builder.schedule(two, 10, owner=0)
    found = {**builder.logits_at(two, [3], owner=0), **builder.logits_at(one, [2], owner=0)}
    rows = builder.build().logit_rows
    assert np.array_equal(builder.build().token_ids[rows[[found[2], found[3]]]], [3, 7])


def test_a_full_pool_schedules_what_came_before() -> None:
    cache = TokenTree(4)
    one, two = cache.open([1, 2, 3]), cache.open([9, 8, 7])
    builder = BatchBuilder(cache, SCRATCH)
    assert builder.schedule(one, 10, owner=0)
    with pytest.raises(OutOfSlots):
        builder.schedule(two, 10, owner=1)
    assert builder.build().token_ids.tolist() == [1, 2, 3]
