"""Named int32 arrays in one device buffer at fixed addresses, sent by one copy.

The copy is asynchronous from pinned memory, two host buffers taking turns. It ends where the last
array does, as far as that is used: the array with most room to spare should come last. Addresses
change only when an array outgrows its room, and never once `fix` was called: a captured CUDA graph
then sees what was sent last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
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

    def room_for(
        self, sizes: Mapping[str, int]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Host memory of what is sent next, and where each array starts in it.

        It is the caller's until `send`; what lies there stays for as long as it is the last sent.

        Args:
            sizes: integers of every array, in the order that the constructor was given.
        Raises:
            InputError: more than fixed room.
        """
        room = self.room
        for name, size in sizes.items():
            if size > room[name]:
                self._grow(sizes)
                break
        last = next(reversed(self.room))
        self._used = self._begin[last] + sizes.get(last, 0)
        copied = self._copied[1 - self._turn]
        if copied is not None:
            copied.synchronize()
        return self._ints[1 - self._turn], self._starts

    def send(self) -> None:
        """Copy what the memory of `room_for` holds, without waiting for the device."""
        self._turn = turn = 1 - self._turn
        used = self._used
        self.tensor[:used].copy_(self._host[turn][:used], non_blocking=True)
        copied = self._copied[turn]
        if copied is not None:
            copied.record()

    def __getitem__(self, name: str) -> Tensor:
        """The device view of an array, with all its room."""
        begin = self._begin[name]
        return self.tensor[begin : begin + self.room[name]]

    def _grow(self, sizes: Mapping[str, int]) -> None:
        """Room at the next power of two for every array that needs more."""
        over = {name: size for name, size in sizes.items() if size > self.room[name]}
        if self.is_fixed:
            wanted = {name: self.room[name] for name in over}
            raise InputError(expected_got("plan", f"at most {wanted} integers", over))
        self._allocate(self.room | {name: 1 << (n - 1).bit_length() for name, n in over.items()})

    def _allocate(self, room: dict[str, int]) -> None:
        self.room = room
        self.version += 1
        ends = np.cumsum([-(-count // ALIGN) * ALIGN for count in room.values()])
        self._starts = np.append(0, ends)[:-1]
        self._begin = dict(zip(room, self._starts.tolist(), strict=True))
        self._used = int(ends[-1])  # of what is sent next
        size, on_gpu = int(ends[-1]), self.device.type == "cuda"
        self._host = [torch.zeros(size, dtype=torch.int32, pin_memory=on_gpu) for _ in range(2)]
        self._ints = [host.numpy() for host in self._host]
        self.tensor = torch.zeros(size, dtype=torch.int32, device=self.device)
        self._copied = [torch.cuda.Event() if on_gpu else None for _ in range(2)]
