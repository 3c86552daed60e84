"""Named arrays of several dtypes in one byte buffer, so that one copy moves them all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ALIGN = 128  # bytes: arrays start there


class Packed:
    """Where each array lies; `num_bytes` is the size of a buffer for all."""

    def __init__(self, arrays: Mapping[str, tuple[torch.dtype, int]]) -> None:
        self._places: dict[str, tuple[torch.dtype, int, int]] = {}
        self.num_bytes = 0
        for name, (dtype, count) in arrays.items():
            begin, size = self.num_bytes, count * dtype.itemsize
            self._places[name] = (dtype, begin, begin + size)
            self.num_bytes += -(-size // ALIGN) * ALIGN

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The arrays as flat views of `buffer` [num_bytes] uint8."""
        return {
            name: buffer[begin:end].view(dtype)
            for name, (dtype, begin, end) in self._places.items()
        }
