"""What each request pays: KV that attention reads, divided among those who share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ramify.core.forest import Forest
from ramify.core.outputs import Usage
from ramify.engine.batch import Block, StepBatch
from ramify.engine.request import Request

UNSHARED_METHODS = ("per_branch", "lean")


def charge_step(
    blocks: Sequence[Block],
    batch: StepBatch,
    requests: Mapping[int, Request],
    *,
    token_bytes: int,
    method: str,
) -> None:
    """Charge one step to the requests that own its rows."""
    first = [block.first_row for block in blocks]
    # decoding branch by branch, a chunk of one node still reads its path only once
    paths = np.maximum.reduceat(batch.forest.path_len, first) * token_bytes
    shares = np.rint(np.add.reduceat(batch.forest.row_share, first) * token_bytes).astype(np.int64)
    columns = zip(blocks, paths.tolist(), shares.tolist(), strict=True)
    for block, alone, shared in columns:
        usage = requests[block.owner].usage
        if block.graft is None:
            usage.kv_bytes_per_branch += alone
        elif method in UNSHARED_METHODS:
            # decoding alone has no drafts; what of them is kept is charged once it is known
            alone = int(batch.forest.path_len[block.graft.line_rows].sum()) * token_bytes
        usage.kv_bytes_read += alone if method in UNSHARED_METHODS else shared
        usage.computed_tokens += 0 if block.is_probe else block.end - block.begin
    for owner in {block.owner for block in blocks}:
        requests[owner].usage.steps += 1


def charge_rows(
    usage: Usage, forest: Forest, rows: slice, *, token_bytes: int, method: str
) -> None:
    """Charge a request for rows of one step, each the newest token of a branch of its own."""
    alone = int(forest.path_len[rows].sum()) * token_bytes
    shared = int(np.rint(forest.row_share[rows] * token_bytes).sum())
    usage.kv_bytes_read += alone if method in UNSHARED_METHODS else shared
    usage.kv_bytes_per_branch += alone
    usage.computed_tokens += rows.stop - rows.start
    usage.steps += 1


class BranchCharges:
    """Charges for decode steps that follow on a batch of one row per branch.

    From step to step a row's path is longer by a token that nobody shares.
    """

    def __init__(self, batch: StepBatch, *, token_bytes: int, method: str) -> None:
        paths = batch.forest.path_len
        self._paths = paths.tolist()
        self._shares = (
            self._paths if method in UNSHARED_METHODS else batch.forest.row_share.tolist()
        )
        self._token_bytes = token_bytes
        self._steps: dict[int, int] = {}  # request -> steps it has paid for

    def charge(self, request: Request, row: int, begin: int, end: int) -> None:
        """Charge the steps [begin, end) of a row; `begin` counts from the batch's own step."""
        count = end - begin
        grown = (begin + end - 1) * count // 2
        usage: Usage = request.usage
        usage.kv_bytes_read += round((self._shares[row] * count + grown) * self._token_bytes)
        usage.kv_bytes_per_branch += (self._paths[row] * count + grown) * self._token_bytes
        usage.computed_tokens += count
        paid = self._steps.get(request.id, 0)
        if end > paid:
            usage.steps += end - paid
            self._steps[request.id] = end
