"""The draws of decode steps that follow one another, on the device: nothing is sent in between.

Each kind of draws launches what it takes and no more; the plain kind knows nothing of the others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from ramify.engine.device_sample import DeviceSampler
from ramify.engine.draws import MOST_EDITS, DrawKind, DrawnRows, DrawTable, Report
from ramify.engine.penalties import TokenCounts
from ramify.engine.sample import History


class DeviceDraws:
    """See decode_loop.Draws; for up to `capacity` rows."""

    def __init__(self, capacity: int, vocab_size: int, device: torch.device) -> None:
        self._capacity, self._vocab_size, self._device = capacity, vocab_size, device
        self._plain = DeviceSampler(capacity, vocab_size, device)

    @cached_property
    def _counts(self) -> TokenCounts:
        return TokenCounts(self._capacity, self._vocab_size, self._device)

    @cached_property
    def _edited(self) -> DeviceSampler:
        # a draw with a history and nothing else is an edit too
        room = MOST_EDITS + self._capacity
        return DeviceSampler(
            self._capacity, self._vocab_size, self._device, edit_capacity=room, counts=self._counts
        )

    def fill(self, draws: DrawTable, kind: DrawKind) -> None:
        """Take over how the next step draws; rows beyond draw nothing."""
        if not kind.is_edited:
            self._plain.batch.fill_table(draws)
            return
        rows = draws.rows()
        self._counts.fill(rows)
        self._edited.batch.fill([replace(row, history=row.history and History()) for row in rows])

    def draw(self, logits: Tensor, kind: DrawKind) -> DrawnRows[Tensor]:
        """Draw a token from every row of logits [rows, V]."""
        rows, sampler = len(logits), self._edited if kind.is_edited else self._plain
        drawn = sampler.draw(logits, num_draws=rows, with_ranks=kind.is_reported)
        report = None
        if kind.is_reported:
            report = Report(drawn.ranks[:rows], sampler.top(logits, rows))
        if kind.is_edited:
            self._counts.add(sampler.batch["row"], drawn.tokens, rows)
        sampler.batch.advance()
        return DrawnRows(drawn.tokens[:rows], drawn.logprobs[:rows], report)
