"""Assemble one step: which tokens of which nodes are computed, and whose logits are wanted.

Paths share nodes, so several tasks may wait for the same tokens: each token is computed once, and a
logits row is shared by everybody who wants it. A wanted row that was computed in an earlier step is
asked again as a *probe*: a query over the KV already there whose own K and V go to a scratch slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ramify.cache import Cursor, Node, TokenTree, build_forest
from ramify.core.forest import Forest
from ramify.engine.speculation.draft import DraftTree
from ramify.engine.speculation.graft import Graft, grafted


class Block(NamedTuple):
    """Consecutive tokens [begin, end) of one node, as rows of the step."""

    node: Node
    begin: int
    end: int
    first_row: int
    owner: int  # the request that pays for these rows
    is_probe: bool
    graft: Graft | None = None  # the rows are a draft below the node, not tokens of it


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """The rows of one step. All arrays are int64; `logit_rows` index the rows.

    Where the step `follows` on the one before, with longer tips and other slots, attention may
    keep the cuts of that step's plan.
    """

    token_ids: np.ndarray  # [rows]
    positions: np.ndarray  # [rows] absolute position on the path
    slots: np.ndarray  # [rows] where K and V are written
    logit_rows: np.ndarray  # [n]
    forest: Forest
    follows: bool = False


class BatchBuilder:
    """Collects the rows of one step, then turns them into a `StepBatch`."""

    def __init__(self, cache: TokenTree, scratch_slot: int) -> None:
        self._cache = cache
        self._scratch_slot = scratch_slot
        self._blocks_of: dict[Node, list[Block]] = {}
        self._scheduled: dict[Node, int] = {}  # node -> tokens computed once this step is done
        self._logit_of: dict[int, int] = {}  # row -> index among the logits
        self.blocks: list[Block] = []
        self.num_rows = 0

    def schedule(self, cursor: Cursor, budget: int, owner: int) -> bool:
        """Add up to `budget` uncomputed tokens of a path, top down.

        Returns whether the whole path is computed once the step is done. Raises OutOfSlots, with
        what was added before still scheduled.
        """
        for node, limit in _uncomputed(cursor):
            done = max(self._scheduled.get(node, 0), node.num_computed)
            end = min(limit, done + budget)
            if end > done:
                self._cache.reserve_slots(node, end)
                self._add(node, done, end, owner)
                self._scheduled[node] = end
                budget -= end - done
            if max(end, done) < limit:
                return False
        return True

    def graft(self, cursor: Cursor, draft: DraftTree, slots: np.ndarray, owner: int) -> int:
        """Add a draft below a path that this step computes to its end; nothing else comes after.

        Args:
            slots: [tokens] int64, by the tokens' places, see DraftShape.
        Returns:
            The logits index of the draft's first token; the others follow.
        """
        node, first, logit = cursor.node, self.num_rows, len(self._logit_of)
        tip = self._row(node, cursor.offset - 1, owner)
        assert tip is not None and tip < self.num_rows == first, "the step computes the tip"
        graft = Graft(tip, first, draft.tokens, cursor.length, draft.shape, slots)
        begin, rows = cursor.offset, range(first, first + len(draft.tokens))
        self.blocks.append(Block(node, begin, begin + len(rows), first, owner, False, graft))
        self.num_rows += len(rows)
        self._logit_of.update(zip(rows, range(logit, logit + len(rows)), strict=True))
        return logit

    def logits_at(self, cursor: Cursor, positions: Iterable[int], owner: int) -> dict[int, int]:
        """Logits index for each absolute position of a path that this step can give.

        Positions not computed yet are left out; those computed in earlier steps become probes.
        """
        found: dict[int, int] = {}
        for position in positions:
            node = next(n for n, _ in _upward(cursor) if n.start <= position)
            row = self._row(node, position - node.start, owner)
            if row is not None:
                found[position] = self._logit_of.setdefault(row, len(self._logit_of))
        return found

    def logits_of_tips(self, cursors: Iterable[Cursor], owner: int) -> list[int]:
        """Logits index of the last token of each path; all are computed once the step is done."""
        found = []
        for cursor in cursors:
            row = self._row(cursor.node, cursor.offset - 1, owner)
            assert row is not None, f"{cursor} is not computed in this step"
            found.append(self._logit_of.setdefault(row, len(self._logit_of)))
        return found

    def build(self) -> StepBatch:
        """The step's arrays and its forest."""
        tokens, positions, slots = np.empty((3, self.num_rows), dtype=np.int64)
        own = [block for block in self.blocks if block.graft is None]
        for block in own:
            row, node, begin, end = block.first_row, block.node, block.begin, block.end
            if end - begin == 1:  # decoding: hundreds of these
                tokens[row], positions[row] = node.tokens[begin], node.start + begin
                slots[row] = (
                    self._scratch_slot if block.is_probe else self._cache.slot_of(node, begin)
                )
                continue
            rows = slice(row, row + end - begin)
            tokens[rows] = node.tokens[begin:end]
            positions[rows] = np.arange(node.start + begin, node.start + end)
            slots[rows] = self._cache.slots_of(node, begin, end)
        grafts = [block.graft for block in self.blocks if block.graft is not None]
        for graft in grafts:
            rows = slice(graft.first_row, graft.first_row + len(graft.tokens))
            tokens[rows], positions[rows] = graft.tokens, graft.positions
            slots[rows] = graft.row_slots
        seen = [(b.node, offset + 1) for b in own for offset in range(b.begin, b.end)]
        return StepBatch(
            token_ids=tokens,
            positions=positions,
            slots=slots,
            logit_rows=np.fromiter(self._logit_of, dtype=np.int64, count=len(self._logit_of)),
            forest=grafted(build_forest(seen, self._scheduled), grafts),
        )

    def commit(self) -> None:
        """Mark the scheduled tokens as computed."""
        for node, end in self._scheduled.items():
            self._cache.mark_computed(node, end)

    def _row(self, node: Node, offset: int, owner: int) -> int | None:
        """The row of a token: one of this step's, or a new probe if it was computed before."""
        for block in self._blocks_of.get(node, ()):
            if block.begin <= offset < block.end:
                return block.first_row + offset - block.begin
        if offset >= node.num_computed:
            return None
        return self._add(node, offset, offset + 1, owner, is_probe=True).first_row

    def _add(
        self, node: Node, begin: int, end: int, owner: int, *, is_probe: bool = False
    ) -> Block:
        block = Block(node, begin, end, self.num_rows, owner, is_probe)
        self.blocks.append(block)
        self._blocks_of.setdefault(node, []).append(block)
        self.num_rows += end - begin
        return block


def _upward(cursor: Cursor) -> Iterator[tuple[Node, int]]:
    """Nodes of a path from its end to its root, each with its tokens that belong to the path."""
    node, limit = cursor.node, cursor.offset
    while node.parent is not None:
        yield node, limit
        node = node.parent
        limit = len(node.tokens)


def _uncomputed(cursor: Cursor) -> list[tuple[Node, int]]:
    """Nodes of a path that have tokens to compute, top down."""
    nodes: list[tuple[Node, int]] = []
    node = cursor.node
    while node.parent is not None:
        limit = len(node.tokens)
        if node.num_computed < limit:
            nodes.append((node, limit))
        # a node holds computed tokens only if everything above it is computed
        if node.num_computed:
            break
        node = node.parent
    return nodes[::-1]
