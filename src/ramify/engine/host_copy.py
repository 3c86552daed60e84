"""What a step has drawn on its way to the host: pinned arrays, and when they will be there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ramify.engine.draws import MOST_TOP, DrawnRows, Report


class HostCopy:
    """Room for the results of one step in flight, of up to `max_rows` rows."""

    def __init__(self, max_rows: int, *, on_gpu: bool) -> None:
        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(max_rows, *shape, dtype=dtype, pin_memory=on_gpu)

        self._tokens, self._logprobs = zeros(torch.int64), zeros(torch.float32)
        self._report = Report(zeros(torch.int32), zeros(torch.int32, 2, MOST_TOP))
        self._arrived = torch.cuda.Event() if on_gpu else None
        self._rows, self._is_reported = 0, False

    def send(self, drawn: DrawnRows[Tensor], rows: int) -> None:
        """Queue a copy of the first rows."""
        self._rows, self._is_reported = rows, drawn.report is not None
        pairs = [(self._tokens, drawn.tokens), (self._logprobs, drawn.logprobs)]
        if drawn.report is not None:
            pairs += zip(self._report, drawn.report, strict=True)
        for target, result in pairs:
            target[:rows].copy_(result[:rows], non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> None:
        """Until what was sent last is there."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def read(self) -> DrawnRows[np.ndarray]:
        """What was sent last, in arrays of its own."""
        report = Report(*map(self._copy, self._report)) if self._is_reported else None
        return DrawnRows(self._copy(self._tokens), self._copy(self._logprobs), report)

    def _copy(self, array: Tensor) -> np.ndarray:
        return array[: self._rows].numpy().copy()
