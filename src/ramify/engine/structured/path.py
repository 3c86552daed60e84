"""The state of a grammar at the end of a path, from the tokens on it: no node keeps a parser."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.core.structured import StructuredOutput
from ramify.engine.structured.state import GrammarState
from ramify.search.tree import LogicalNode


def state_at(
    path: Sequence[LogicalNode],
    structured: StructuredOutput,
    start: GrammarState,
    *,
    may_restart: bool,
) -> GrammarState:
    """Where a grammar is behind the nodes of a path, from the root down.

    A grammar begins with the first node that was grown under it and covers what follows, given
    tokens too. It begins anew behind tokens that it refuses and behind a complete text: what comes
    there is another part of a conversation.

    Args:
        start: the grammar's state before any token; it may be what is returned.
        may_restart: begin anew at the end of the path too; else a complete text stays one there.
    """
    state: GrammarState | None = None
    for node in path:
        if state is not None and state.is_over:
            state = None
        if state is None and node.structured == structured:
            state = start.fork()
        if state is not None and state.advance(node.token_ids) < len(node.token_ids):
            state = None
    if state is None or (may_restart and state.is_over):
        return start
    return state
