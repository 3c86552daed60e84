"""Drafts as rows of a step, and what of them the model keeps.

A draft hangs below its branch's tip in the token tree: a line without a fork is a node, so a row
sees its ancestors only, and each is a query of the same step. The token that plain decoding draws
at a position follows from the logits there and from the branch's seed, since its noise is a
function of seed and position (core/seeds.py). So it is drawn at the tip and at every draft token,
and a draft token is accepted exactly if it is what was drawn before it. The branch gets the tokens
of plain decoding, for every sampling parameter, and one more than were accepted.

Rejection sampling would accept a token of a drafter with known probabilities more often, since it
may change what is drawn as long as the distribution stays; here the draws themselves stay.

Keeping the accepted path is an edit of the token tree: the branch moves to a fork of the line that
holds it, and everything else is pruned. No K or V is moved.
Source: draft trees after SpecInfer (Miao et al. 2024) and EAGLE-2 (Li et al. 2024); equality in
place of their rejection sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ramify.cache import TokenTree
from ramify.core.outputs import TokenLogprob
from ramify.engine.batch import BatchBuilder
from ramify.engine.live import LiveTrees
from ramify.engine.request import Grow, cursor_of
from ramify.engine.sample import History, SampleRow
from ramify.engine.speculation.branch import Drafting, Guess
from ramify.engine.speculation.draft import ROOT, DraftTree
from ramify.engine.structured.state import GrammarState


# ── before the forward pass ──────────────────────────────────────────────────────────────────────
def attach(cache: TokenTree, builder: BatchBuilder, task: Grow, tree: DraftTree) -> Guess:
    """Put a draft below a branch whose tip is computed in this step, and into the step's rows.

    The cache must have a slot available for each of its tokens.
    """
    guess, tip, owner = Guess(tree), cursor_of(task), task.request.id
    for line in tree.chains():
        above = tree.parents[line[0]]
        base = tip if above == ROOT else guess.cursors[guess.line_of[above]]
        cursor = cache.fork(base)
        cache.append(cursor, [tree.tokens[index] for index in line])
        builder.schedule(cursor, len(line), owner, is_draft=True)
        positions = range(base.length, cursor.length)
        rows = builder.logits_at(cursor, positions, owner)
        guess.rows |= {index: rows[at] for index, at in zip(line, positions, strict=True)}
        guess.line_of |= dict.fromkeys(line, len(guess.cursors))
        guess.cursors.append(cursor)
    return guess


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
    for index, depth in enumerate(guess.tree.depths):
        known = histories[guess.tree.parents[index]]
        histories[index] = known and _with_token(known, guess.tree.tokens[index])
        above = grammars[guess.tree.parents[index]]
        grammars[index] = above and above.after(guess.tree.tokens[index])
        draws.append(
            replace(
                tip,
                row=guess.rows[index],
                position=tip.position + depth,
                banned=tip.banned if depth < unbanned else (),
                history=histories[index],
                grammar=grammars[index],
            )
        )
    return draws


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
    index: dict[tuple[int, int | None], int] = {
        (parent, token): place
        for place, (parent, token) in enumerate(zip(tree.parents, tree.tokens, strict=True))
    }
    kept: list[int] = []
    at = index.get((ROOT, drawn[0]))
    while at is not None:
        kept.append(at)
        at = index.get((at, drawn[at + 1]))
    return kept


def accept(
    live: LiveTrees,
    task: Grow,
    drawn: Sequence[TokenLogprob | None],
    record: Callable[[Grow, TokenLogprob], None],
) -> None:
    """Write down what was drawn along the draft, and keep the K and V of its accepted path.

    Args:
        drawn: at the tip, then behind each draft token; None where a grammar left nothing to draw,
            which ends the branch when the next step finds its tip there.
        record: writes a token into the logical tree; it may end the branch.
    """
    drafting = task.drafting
    assert drafting is not None and drafting.guess is not None, "a draft was verified"
    guess, drafting.guess = drafting.guess, None
    kept = accepted(guess.tree, [None if token is None else token.token_id for token in drawn])
    on_path = [drawn[0], *(drawn[index + 1] for index in kept)]
    tokens = [token for token in on_path if token is not None]
    num_recorded = 0
    for token in tokens:
        record(task, token)
        num_recorded += 1
        if task.id not in live.tasks:
            break
    drafting.num_kept = min(num_recorded, len(kept))
    if num_recorded > 1:
        drafting.drawn_row = guess.rows[kept[num_recorded - 2]]
    _move(live.cache, task, guess, kept[: drafting.num_kept])
    if num_recorded > drafting.num_kept:
        live.cache.append(cursor_of(task), [tokens[num_recorded - 1].token_id])
    usage = task.request.usage
    usage.verified_steps += 1
    usage.drafted_tokens += len(guess.tree.tokens)
    usage.accepted_tokens += drafting.num_kept


def _move(cache: TokenTree, task: Grow, guess: Guess, kept: Sequence[int]) -> None:
    """Let a branch end behind the kept tokens of its draft and prune the rest."""
    tip, gone = cursor_of(task), list(guess.cursors)
    if kept:
        line = guess.cursors[guess.line_of[kept[-1]]]
        gone.append(tip)
        task.cursor = cache.fork(line, tip.length + len(kept))
        task.request.cursors[task.node] = task.cursor
    cache.prune(gone)


def discard(cache: TokenTree, draftings: Iterable[Drafting]) -> None:
    """Take the drafts of a step that failed out of the token tree."""
    for drafting in draftings:
        guess, drafting.guess = drafting.guess, None
        if guess is not None:
            cache.prune(guess.cursors)
