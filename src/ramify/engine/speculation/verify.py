"""Drafts as rows of a step, and what of them the model keeps.

A draft hangs below its branch's tip in the step's forest: a row sees its ancestors only, and each
token is a query of the same step. The token that plain decoding draws at a position follows from
the logits there and from the branch's seed, since its noise is a function of seed and position
(core/seeds.py). So it is drawn at the tip and at every draft token, and a draft token is accepted
exactly if it is what was drawn before it. The branch gets the tokens of plain decoding, for every
sampling parameter, and one more than were accepted.

Rejection sampling would accept a token of a drafter with known probabilities more often, since it
may change what is drawn as long as the distribution stays; here the draws themselves stay.

The branch's node lends the draft its slots. Keeping the accepted path is metadata: its slots become
the node's own, the others are reserved for the next draft. No K or V is moved.
Source: draft trees after SpecInfer (Miao et al. 2024) and EAGLE-2 (Li et al. 2024); equality in
place of their rejection sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.cache import TokenTree
from ramify.engine.batch import BatchBuilder
from ramify.engine.draws import DrawTable
from ramify.engine.live import LiveTrees
from ramify.engine.request import Grow, cursor_of
from ramify.engine.sample import History, SampleRow
from ramify.engine.speculation.branch import Guess
from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.shape import ROOT
from ramify.engine.structured.state import GrammarState


# ── before the forward pass ──────────────────────────────────────────────────────────────────────
def attach(cache: TokenTree, builder: BatchBuilder, task: Grow, tree: DraftTree) -> Guess:
    """Put a draft below a branch whose tip is computed in this step, and into the step's rows.

    The cache must have a slot available for each of its tokens, and the branch may lend.
    """
    cursor = cursor_of(task)
    slots = cache.lend_slots(cursor, len(tree.tokens))
    return Guess(tree, builder.graft(cursor, tree, slots, task.request.id))


def guess_of(task: Grow) -> Guess | None:
    """The draft of a branch that is verified in this step."""
    return None if task.drafting is None else task.drafting.guess


def draws_of(guess: Guess, tip: SampleRow, unbanned: int) -> list[SampleRow]:
    """The draws behind every draft token, after the one at the tip.

    Args:
        tip: how the token after the tip is drawn.
        unbanned: tokens from the tip on that may not be a stop yet.
    """
    draws = []
    histories: dict[int, History | None] = {ROOT: tip.history}
    grammars: dict[int, GrammarState | None] = {ROOT: tip.grammar}
    for index, depth in enumerate(guess.tree.shape.depth.tolist()):
        known = histories[guess.tree.parents[index]]
        histories[index] = known and _with_token(known, guess.tree.tokens[index])
        above = grammars[guess.tree.parents[index]]
        grammars[index] = above and above.after(guess.tree.tokens[index])
        draws.append(
            replace(
                tip,
                row=guess.first + index,
                position=tip.position + depth,
                banned=tip.banned if depth < unbanned else (),
                history=histories[index],
                grammar=grammars[index],
            )
        )
    return draws


def drafted(
    tips: Sequence[SampleRow], guesses: Sequence[Guess | None]
) -> tuple[npt.NDArray[np.int64], DrawTable]:
    """Rows of logits, and the draws from them: those at the tips, then those behind each draft.

    Only where rules are numbers, the same for all tokens of a branch.
    """
    rule, row = [np.arange(len(tips))], [np.array([tip.row for tip in tips], np.int64)]
    position = [np.array([tip.position for tip in tips], np.int64)]
    for index, (tip, guess) in enumerate(zip(tips, guesses, strict=True)):
        if guess is not None:
            depth = guess.tree.shape.depth
            rule.append(np.full(len(depth), index))
            row.append(guess.first + np.arange(len(depth)))
            position.append(tip.position + depth)
    table = DrawTable(tips, np.concatenate(rule), np.concatenate(position))
    return np.concatenate(row), table


def _with_token(history: History, token: int) -> History:
    counts = history.generated.copy()
    counts[token] += 1
    return History(prompt=history.prompt, generated=counts)


# ── after it ─────────────────────────────────────────────────────────────────────────────────────
def accepted(tree: DraftTree, drawn: Sequence[int | None]) -> list[int]:
    """Indices of the draft tokens on the path that was drawn, top down.

    Args:
        drawn: the token drawn at the tip, then those drawn behind each draft token; None where
            nothing could be drawn.
    """
    kept: list[int] = []
    at, children = ROOT, tree.shape.children
    while True:
        wanted = drawn[at + 1]
        found = next((i for i in children.get(at, ()) if tree.tokens[i] == wanted), None)
        if found is None:
            return kept
        kept.append(found)
        at = found


class Outcome(NamedTuple):
    """What a branch has of a step, before anything is written down."""

    fresh: list[int]  # its new tokens
    places: list[int]  # of accepted draft tokens, in the draft's lines
    row: int  # that the newest token was drawn from


def outcome_of(task: Grow, tip: int, tokens: Sequence[int]) -> Outcome:
    """What the branch whose tip is row `tip` accepts of its draft, if it has one.

    Args:
        tokens: drawn from the rows of the step.
    """
    guess, fresh = guess_of(task), [tokens[tip]]
    if guess is None:
        return Outcome(fresh, [], tip)
    tree, first = guess.tree, guess.first
    kept = accepted(tree, [tokens[tip], *tokens[first : first + len(tree.tokens)]])
    if not kept:
        return Outcome(fresh, [], tip)
    fresh += [tokens[first + index] for index in kept]
    return Outcome(fresh, tree.shape.place[kept].tolist(), first + kept[-1])


def accept(
    live: LiveTrees,
    task: Grow,
    drawn: Sequence[int | None],
    record: Callable[[int], None],
) -> None:
    """Write down what was drawn along the draft, and keep the K and V of its accepted path.

    Args:
        drawn: at the tip, then behind each draft token; None where a grammar left nothing to draw,
            which ends the branch when the next step finds its tip there.
        record: writes the i-th of these tokens into the logical tree; it may end the branch.
    """
    drafting = task.drafting
    assert drafting is not None and drafting.guess is not None, "a draft was verified"
    guess, drafting.guess = drafting.guess, None
    tree, cursor = guess.tree, cursor_of(task)
    kept = accepted(tree, drawn)
    on_path = [at for at in (0, *(index + 1 for index in kept)) if drawn[at] is not None]
    num_recorded = 0
    for at in on_path:
        record(at)
        num_recorded += 1
        if task.id not in live.tasks:
            break
    drafting.num_kept = min(num_recorded, len(kept))
    if num_recorded > 1:
        drafting.drawn_row = guess.first + kept[num_recorded - 2]
    kept, place = kept[: drafting.num_kept], tree.shape.place
    live.cache.take_back(cursor, [tree.tokens[i] for i in kept], [int(place[i]) for i in kept])
    if num_recorded > drafting.num_kept:
        last = drawn[on_path[num_recorded - 1]]
        assert last is not None
        live.cache.append(cursor, [last])
    usage = task.request.usage
    usage.verified_steps += 1
    usage.drafted_tokens += len(tree.tokens)
    usage.accepted_tokens += drafting.num_kept


def discard(cache: TokenTree, tasks: Iterable[Grow]) -> None:
    """Give back what the drafts of a step that failed were lent."""
    for task in tasks:
        drafting = task.drafting
        if drafting is not None and drafting.guess is not None:
            drafting.guess = None
            cache.take_back(cursor_of(task))
