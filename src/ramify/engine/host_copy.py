"""What a step has drawn on its way to the host: pinned arrays, and when they will be there.

A replayed step leaves its results where the step before left them, so what is copied from where is
found once. Arrays that lie in one buffer on the device come by one copy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ramify.engine.draws import MOST_TOP, DrawnRows, Report

ROW_BYTES = 12  # a token and its log-probability


class HostCopy:
    """Room for the results of one step in flight, of up to `max_rows` rows."""

    def __init__(self, max_rows: int, *, on_gpu: bool) -> None:
        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, pin_memory=on_gpu)

        self._max_rows = max_rows
        self._bytes = zeros(torch.uint8, max_rows * ROW_BYTES)
        self._report = Report(
            zeros(torch.int32, max_rows), zeros(torch.int32, max_rows, 2, MOST_TOP)
        )
        self._arrived = torch.cuda.Event() if on_gpu else None
        self._drawn: DrawnRows[Tensor] | None = None  # sent last, of so many rows
        self._rows = 0
        self._copies: list[tuple[Tensor, Tensor]] = []  # targets and sources

    def send(self, drawn: DrawnRows[Tensor], rows: int) -> None:
        """Queue a copy of the first rows; results that are the same object lie where they lay."""
        if drawn is not self._drawn or rows != self._rows:
            self._find(drawn, rows)
        for target, source in self._copies:
            target.copy_(source, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> None:
        """Until what was sent last is there."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def read(self) -> DrawnRows[np.ndarray]:
        """What was sent last, in arrays that the next `send` writes over."""
        return self._arrays

    def _find(self, drawn: DrawnRows[Tensor], rows: int) -> None:
        """Find what to copy where, and where it can then be read."""
        sources = drawn.tokens[:rows], drawn.logprobs[:rows]
        span = _span(*sources)
        if span is not None and len(span) <= len(self._bytes):
            begins = [source.data_ptr() - span.data_ptr() for source in sources]
        else:
            span, begins = None, [0, self._max_rows * sources[0].itemsize]
        tokens, logprobs = targets = [
            self._bytes[begin : begin + source.nbytes].view(source.dtype)
            for begin, source in zip(begins, sources, strict=True)
        ]
        if span is None:
            self._copies = list(zip(targets, sources, strict=True))
        else:
            self._copies = [(self._bytes[: len(span)], span)]
        report = None
        if drawn.report is not None:
            into = [target[:rows] for target in self._report]
            self._copies += zip(into, (source[:rows] for source in drawn.report), strict=True)
            report = Report(*(target.numpy() for target in into))
        self._arrays = DrawnRows(tokens.numpy(), logprobs.numpy(), report)
        self._drawn, self._rows = drawn, rows


def _span(first: Tensor, last: Tensor) -> Tensor | None:
    """All bytes from one array to the end of another that lies behind it in the same buffer."""
    storage = first.untyped_storage()
    if storage.data_ptr() != last.untyped_storage().data_ptr():
        return None
    begin = first.data_ptr() - storage.data_ptr()
    end = last.data_ptr() + last.nbytes - storage.data_ptr()
    if end <= begin:
        return None
    return torch.empty(0, dtype=torch.uint8, device=first.device).set_(storage)[begin:end]
