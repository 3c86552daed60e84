"""Drafts under a grammar: what it refuses is cut before anybody computes it."""

from __future__ import annotations

from collections.abc import Collection

from ramify.engine.speculation.draft import ROOT, DraftTree
from ramify.engine.structured.state import GrammarState


def legal_part(tree: DraftTree, tip: GrammarState, ends: Collection[int]) -> DraftTree:
    """The tokens of a draft that a grammar may read, with all above them.

    Args:
        tip: the state where the draft hangs.
        ends: tokens that end a branch, which the grammar does not know: legal where it accepts.
    """
    tokens: list[int] = []
    parents: list[int] = []
    place: list[int | None] = []  # of each token in the new tree; None where it was cut
    states: list[GrammarState | None] = []  # behind each kept token; None where nothing may follow
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        above = ROOT if parent == ROOT else place[parent]
        state = None if above is None else tip if above == ROOT else states[above]
        read = None if state is None else state.fork()
        is_read = read is not None and read.advance((token,)) == 1
        is_end = state is not None and token in ends and state.is_accepting
        if above is None or not (is_read or is_end):
            place.append(None)
            continue
        place.append(len(tokens))
        tokens.append(token)
        parents.append(above)
        states.append(read if is_read and read is not None and not read.is_over else None)
    return DraftTree(tuple(tokens), tuple(parents))
