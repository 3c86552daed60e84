"""Drafts under a grammar: what it refuses is cut before anybody computes it."""

from __future__ import annotations

from collections.abc import Collection

from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.shape import ROOT
from ramify.engine.structured.state import GrammarState


def legal_part(tree: DraftTree, tip: GrammarState, ends: Collection[int]) -> DraftTree:
    """The tokens of a draft that a grammar may read, with all above them.

    Args:
        tip: the state where the draft hangs.
        ends: tokens that end a branch, which the grammar does not know: legal where it accepts.
    """
    tokens: list[int] = []
    parents: list[int] = []
    place: list[int] = []  # of each token in the new tree; ROOT where it was cut
    states: list[GrammarState | None] = []  # behind each token; None where nothing may follow
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        state = tip if parent == ROOT else states[parent]
        is_end = state is not None and token in ends and state.is_accepting
        if state is None or not (is_end or state.reads(token)):
            states.append(None)
            place.append(ROOT)
            continue
        states.append(state.after(token))
        place.append(len(tokens))
        tokens.append(token)
        parents.append(ROOT if parent == ROOT else place[parent])
    return DraftTree(tuple(tokens), tuple(parents))
