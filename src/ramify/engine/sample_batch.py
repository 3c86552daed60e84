"""What the draws of one step need on the device: one buffer at fixed addresses, one copy a step.

The copy is asynchronous from pinned memory, two host buffers taking turns. Addresses never change,
so a captured CUDA graph draws by whatever was sent last; in steady decoding nothing has to be sent,
as `advance` moves all draws to their next position on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got
from ramify.core.seeds import mix64
from ramify.engine.sample import COLDEST, SampleRow

ALIGN = 128  # bytes: arrays start there
NO_ROW = -1  # row of a draw that is none


class SampleBatch:
    """The draws of a step as views of one device tensor, one entry per draw.

    row [N] int32, -1 where there is no draw; stream [N] int64, mix64 of the branch's seed;
    position [N] int64, absolute, of the token to draw; temperature [N] float32, 0 is greedy.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.size = 0
        self._layout, self._bytes = _layout(
            {
                "stream": (torch.int64, capacity),
                "position": (torch.int64, capacity),
                "row": (torch.int32, capacity),
                "temperature": (torch.float32, capacity),
            }
        )
        on_gpu = device.type == "cuda"
        self._hosts = [
            torch.zeros(self._bytes, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)
        ]
        self._copied = [torch.cuda.Event() if on_gpu else None for _ in range(2)]
        self._turn = 0
        self._tensor = torch.zeros(self._bytes, dtype=torch.uint8, device=device)
        self._on_device = self._views(self._tensor)
        self["row"].fill_(NO_ROW)

    def __getitem__(self, name: str) -> Tensor:
        """The device view of an array, with all its room."""
        return self._on_device[name]

    def fill(self, rows: Sequence[SampleRow]) -> None:
        """Send what to draw, without waiting for the device; entry i is draw i.

        Raises:
            InputError: there are more draws than the capacity.
        """
        if len(rows) > self.capacity:
            raise InputError(expected_got("draws", f"at most {self.capacity}", len(rows)))
        self._turn = 1 - self._turn
        host, copied = self._hosts[self._turn], self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        _write({name: view.numpy() for name, view in self._views(host).items()}, rows)
        self._tensor.copy_(host, non_blocking=True)
        if copied is not None:
            copied.record()
        self.size = len(rows)

    def advance(self) -> None:
        """Move every draw to its next position, on the device."""
        self["position"].add_(1)

    def _views(self, buffer: Tensor) -> dict[str, Tensor]:
        return {
            name: buffer[begin : begin + count * dtype.itemsize].view(dtype)
            for name, (dtype, begin, count) in self._layout.items()
        }


def _layout(
    arrays: dict[str, tuple[torch.dtype, int]],
) -> tuple[dict[str, tuple[torch.dtype, int, int]], int]:
    """Where each array begins in the buffer, in bytes, and the size of all."""
    places, size = {}, 0
    for name, (dtype, count) in arrays.items():
        places[name] = (dtype, size, count)
        size += -(-count * dtype.itemsize // ALIGN) * ALIGN
    return places, size


def _write(host: dict[str, np.ndarray], rows: Sequence[SampleRow]) -> None:
    count = len(rows)
    host["row"][:count] = [r.row for r in rows]
    host["row"][count:] = NO_ROW
    host["stream"].view(np.uint64)[:count] = np.array([mix64(r.seed) for r in rows], np.uint64)
    host["position"][:count] = [r.position for r in rows]
    host["temperature"][:count] = [_temperature(r) for r in rows]


def _temperature(row: SampleRow) -> float:
    return row.params.temperature if row.params.temperature >= COLDEST else 0.0
