"""Branches that grow in step: one task computes a whole front and ranks its continuations.

What a `Select` chooses becomes an edit of the token tree: a branch with one continuation grows in
place, one with several forks, one with none is pruned. That is metadata; no K or V is moved. What
the next step does not wait for, pruning and the logical tree, is done while the device is busy; in
a step of fronts alone all of it is (front_steps.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ramify.core.errors import InputError, OutOfSlots, expected_got
from ramify.engine.batch import BatchBuilder
from ramify.engine.best import QueuedBest, merge, queue_continuations
from ramify.engine.live import LiveTrees
from ramify.engine.request import Beams, Request
from ramify.engine.structured.state import GrammarState
from ramify.search.controller import Failed, Ranked, Select
from ramify.search.front import Front

MAX_RANKED = 512
"""Branches ranked in a step, which bounds the memory of their logits."""


# ── between two steps: from a choice to paths ────────────────────────────────────────────────────
def select(live: LiveTrees, request: Request, action: Select) -> None:
    """Carry out a `Select`. Raises InputError where it breaks the protocol; nothing was changed."""
    beams = request.beams or _begin(live, request, action)
    if beams.is_due:
        raise InputError(expected_got("Select", "no Select under way", "one that is not answered"))
    beams.front.check(action)
    _check_tokens(live, action)
    grammars = _grammars(beams, action)
    limit = live.limits.max_context
    if action.nodes and beams.tips[0].length >= limit:
        reason = f"paths of {beams.tips[0].length} + 1 tokens exceed the context of {limit}"
        request.events.append(Failed(node=action.nodes[0], reason=reason))
        return
    beams.action, beams.grammars, beams.num_ranked = action, grammars, 0
    beams.is_edited = beams.is_written = False
    request.beams = beams
    if action.nodes:
        live.add_task(beams)
    else:
        write(live, beams)
        request.beams = None


def _begin(live: LiveTrees, request: Request, action: Select) -> Beams:
    """A front of one branch: the node it shall grow from."""
    if action.start not in request.cursors:
        raise InputError(expected_got("Select.start", "a computed node", action.start))
    grammar = live.rules.grammar(request, action.start, action.structured)
    return Beams(
        id=live.next_task_id(),
        request=request,
        node=action.start,
        front=Front(request.tree, action.start),
        tips=[request.cursors[action.start]],
        grammars=[] if grammar is None else [grammar],
    )


def _check_tokens(live: LiveTrees, action: Select) -> None:
    size = live.codec.vocab_size
    for token in (min(action.tokens, default=0), max(action.tokens, default=0)):
        if not 0 <= token < size:
            raise InputError(expected_got("Select.tokens", f"token ids in [0, {size})", token))


def _grammars(beams: Beams, action: Select) -> list[GrammarState]:
    """The states behind the continuations, if there is a grammar; it must allow each of them."""
    if not action.nodes:
        return []
    if beams.action is not None and beams.action.structured != action.structured:
        got = repr(action.structured)
        raise InputError(expected_got("Select.structured", "the same for a whole front", got))
    made = []
    if action.structured is not None:
        state_of = dict(zip(beams.front.nodes, beams.grammars, strict=True))
        for node, token in zip(action.nodes, action.tokens, strict=True):
            state = state_of[node].fork()
            if not state.advance((token,)):
                raise InputError(expected_got("Select.tokens", "tokens of the grammar", token))
            made.append(state)
    return made


def settle(live: LiveTrees) -> None:
    """Edit the token tree for every `Select` that waits for it."""
    for task in live.tasks.values():
        if isinstance(task, Beams):
            edit(live, task)
            if live.cache.available < 2 * len(task.tips):  # the step may need their slots
                _prune(live, task)


def edit(live: LiveTrees, beams: Beams) -> None:
    """Edit the token tree as was selected, unless that is done: the paths of the new front."""
    if beams.is_edited:
        return
    request, cache, front, action = beams.request, live.cache, beams.front, action_of(beams)
    tip_of = dict(zip(front.nodes, beams.tips, strict=True))
    # a path goes to the branch's first continuation, unless somebody else needs it where it ends
    kept = {node: tip for node, tip in tip_of.items() if node in action.held or node == front.start}
    request.cursors.update(kept)
    free = {node: tip for node, tip in tip_of.items() if node not in kept}
    taken = [free.pop(node, None) for node in action.nodes]
    forks = [node for node, tip in zip(action.nodes, taken, strict=True) if tip is None]
    twins = iter(cache.fork_all(tip_of[node] for node in forks))
    grown = [next(twins) if tip is None else tip for tip in taken]
    # what the controller itself has pruned since it was held is gone already
    held = [node for node in front.held if node in request.cursors and node != front.start]
    let_go = [node for node in held if node not in action.held]
    for task in request.tasks.values():
        if live.start_node(task) in let_go:
            live.open(task)
    beams.let_go = [*free.values(), *(request.cursors.pop(node) for node in let_go)]
    cache.append_all(grown, action.tokens)
    beams.tips, beams.is_edited = grown, True


def write(live: LiveTrees, beams: Beams) -> None:
    """Bring both trees up to date: write down what was selected, prune what was not."""
    if not beams.is_written:
        edit(live, beams)
        _prune(live, beams)
        beams.front.move(action_of(beams), live.rules.text_of)
        beams.is_written = True


def action_of(beams: Beams) -> Select:
    """What was selected last."""
    assert beams.action is not None, "a front grows by what was selected"
    return beams.action


def _prune(live: LiveTrees, beams: Beams) -> None:
    let_go, beams.let_go = beams.let_go, []
    live.cache.prune(let_go)


# ── in a step: rows, then continuations ──────────────────────────────────────────────────────────
def schedule(builder: BatchBuilder, beams: Beams, budget: int) -> bool:
    """Add up to `budget` rows, branch by branch; returns whether all are computed then.

    Raises OutOfSlots if not even the first of them has a slot.
    """
    first, owner = builder.num_rows, beams.request.id
    beams.num_computed = 0
    for tip in beams.tips[: beams.num_ranked + MAX_RANKED]:
        try:
            is_whole = builder.schedule(tip, budget - (builder.num_rows - first), owner)
        except OutOfSlots:
            if builder.num_rows == first:
                raise
            return False
        if not is_whole:
            return False
        beams.num_computed += 1
    return beams.num_computed == len(beams.tips)


def wanted(builder: BatchBuilder, beams: Beams) -> dict[int, int]:
    """Index among the step's logits of every branch that is computed then and not ranked yet."""
    places = range(beams.num_ranked, beams.num_computed)
    found = builder.logits_of_tips(
        beams.tips[beams.num_ranked : beams.num_computed], beams.request.id
    )
    return dict(zip(places, found, strict=True))


def rank(live: LiveTrees, beams: Beams, logits: Tensor, wanted: Mapping[int, int]) -> None:
    """Rank the continuations of branches just computed; `Ranked` is raised when all of them are.

    Args:
        logits: [n, vocab] of the step.
        wanted: branch -> index among them, in order.
    """
    write(live, beams)
    if wanted:
        take_best(beams, queue_best(live, beams, _rows(logits, list(wanted.values()))))
    if beams.num_ranked == len(beams.tips):
        answer(live, beams)


def queue_best(live: LiveTrees, beams: Beams, logits: Tensor) -> QueuedBest:
    """Queue the ranking of the branches [n, vocab] that come next, without waiting."""
    action, first, end = action_of(beams), beams.num_ranked, beams.num_ranked + len(logits)
    logprobs = np.array(action.logprobs[first:end], dtype=np.float64)
    grammars = beams.grammars[first:end]
    masks = live.rules.masks(grammars) if grammars else None
    return queue_continuations(logits, logprobs, action.top, masks)


def take_best(beams: Beams, queued: QueuedBest) -> None:
    """Wait for a ranking and note it."""
    best = queued.wait()
    beams.found.append(best._replace(branch=best.branch + beams.num_ranked))
    beams.num_ranked += queued.num_branches


def answer(live: LiveTrees, beams: Beams) -> None:
    """All branches are ranked: raise `Ranked`."""
    best, beams.found = merge(beams.found, action_of(beams).top), []
    beams.request.events.append(Ranked(nodes=beams.front.nodes, best=best))
    live.drop_task(beams)


def _rows(logits: Tensor, rows: list[int]) -> Tensor:
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return logits[rows[0] : rows[0] + len(rows)]
    return logits[torch.tensor(rows, device=logits.device)]
