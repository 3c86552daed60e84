"""Named int32 arrays in one device buffer at fixed addresses, sent by one copy.

The copy is asynchronous from pinned memory, two host buffers taking turns. Addresses change only
when an array outgrows its room, and never once `fix` was called: a captured CUDA graph then sees
what was sent last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got

ALIGN = 32  # int32 elements: arrays start at 128 bytes


class DeviceArrays:
    """Arrays as flat views of one device tensor; `version` counts the changes of addresses."""

    def __init__(self, device: torch.device, room: Mapping[str, int]) -> None:
        self.device = device
        self.is_fixed = False
        self.version = 0
        self._turn = 0
        self._allocate(dict(room))

    def fix(self, room: Mapping[str, int]) -> None:
        """Fix the room of every array: whatever needs more raises InputError from now on."""
        self._allocate({name: max(size, 1) for name, size in room.items()})
        self.is_fixed = True

    def send(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy arrays, without waiting for the device; beyond an array its old values stay."""
        over = {name: array.size for name, array in arrays.items() if array.size > self.room[name]}
        if over:
            if self.is_fixed:
                wanted = {name: self.room[name] for name in over}
                raise InputError(expected_got("plan", f"at most {wanted} integers", over))
            grown = {name: 1 << (size - 1).bit_length() for name, size in over.items()}
            self._allocate(self.room | grown)
        self._turn = 1 - self._turn
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        host = self._host[self._turn]
        views = self._views[self._turn]
        for name, array in arrays.items():
            views[name][: array.size] = array.reshape(-1)
        self.tensor.copy_(host, non_blocking=True)
        if copied is not None:
            copied.record()

    def __getitem__(self, name: str) -> Tensor:
        """The device view of an array, with all its room."""
        begin = self._begin[name]
        return self.tensor[begin : begin + self.room[name]]

    def _allocate(self, room: dict[str, int]) -> None:
        self.room = room
        self.version += 1
        self._begin, size = {}, 0
        for name, count in room.items():
            self._begin[name] = size
            size += -(-count // ALIGN) * ALIGN
        on_gpu = self.device.type == "cuda"
        self._host = [torch.zeros(size, dtype=torch.int32, pin_memory=on_gpu) for _ in range(2)]
        self._views = [
            {name: host.numpy()[begin : begin + room[name]] for name, begin in self._begin.items()}
            for host in self._host
        ]
        self.tensor = torch.zeros(size, dtype=torch.int32, device=self.device)
        self._copied = [torch.cuda.Event() if on_gpu else None for _ in range(2)]
