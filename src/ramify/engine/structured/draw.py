"""Draws under grammars: masks beside the rows, and branches for which nothing is left to draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ramify.core.outputs import TokenLogprob
from ramify.engine.live import LiveTrees
from ramify.engine.request import Fan, Grow, Task
from ramify.engine.sample import SampleRow, sample
from ramify.engine.speculation.verify import discard
from ramify.engine.structured.masks import contains
from ramify.search.controller import Failed, Finished
from ramify.search.tree import NodeState


def draw(
    logits: Tensor, rows: Sequence[SampleRow], live: LiveTrees
) -> Sequence[TokenLogprob | None]:
    """What `sample` draws, by grammars too; None where a grammar leaves nothing.

    Masks are computed here, while a GPU is busy with the logits.
    """
    if all(row.grammar is None for row in rows):
        return sample(logits, rows)
    _fill_masks(rows, live)
    can_draw = [row.mask is None or bool(row.mask.any()) for row in rows]
    chosen = [row for row, can in zip(rows, can_draw, strict=True) if can]
    drawn = iter(sample(logits, chosen) if chosen else ())
    return [next(drawn) if can else None for can in can_draw]


def _fill_masks(rows: Sequence[SampleRow], live: LiveTrees) -> None:
    """Compute the masks of all rows at once; siblings share a state, and its mask with it."""
    users: dict[int, list[SampleRow]] = {}
    for row in rows:
        if row.grammar is not None:
            users.setdefault(id(row.grammar), []).append(row)
    firsts = [same[0] for same in users.values()]
    states = [row.grammar for row in firsts if row.grammar is not None]
    ends = [() if row.banned else live.rules.stop_ids(row.params) for row in firsts]
    masks = live.rules.grammars.masks.with_ends(states, ends)
    for same, mask in zip(users.values(), masks, strict=True):
        for row in same:
            row.mask = mask
            if row.banned and not _leaves_any(mask, row.banned):
                row.banned = ()  # the grammar knows better than `min_tokens`


def _leaves_any(mask: np.ndarray, banned: Sequence[int]) -> bool:
    """Whether a mask allows more than the banned tokens."""
    num_allowed = int(np.bitwise_count(mask.view(np.uint32)).sum())
    return num_allowed > sum(contains(mask, token) for token in set(banned))


def end_stuck(live: LiveTrees, task: Task, row: SampleRow) -> None:
    """End what cannot go on: a text that is complete, or one that no token continues."""
    assert row.grammar is not None, "only a grammar leaves nothing"
    reason = row.grammar.error
    request = task.request
    if isinstance(task, Fan):
        failed = Failed(node=task.node, reason=f"structured: {reason}", tag=task.action.tag)
        request.events.append(failed)
    else:
        assert isinstance(task, Grow)
        discard(live.cache, [task])
        node = request.tree[task.node]
        node.text += task.stream.flush()
        node.state = NodeState.IDLE
        if row.grammar.is_accepting:
            node.finish_reason = "stop"
        else:
            node.finish_reason, node.stop_reason = "error", f"structured: {reason}"
        request.events.append(Finished(node=node.id, tag=task.tag))
    live.drop_task(task)
