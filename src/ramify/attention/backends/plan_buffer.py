"""Device memory of a work list: one packed int32 buffer at fixed addresses, one copy per plan.

The copy is asynchronous from pinned memory, two host buffers taking turns. Addresses change only
when a plan outgrows its capacity, and never once `reserve` has fixed it: then a captured CUDA graph
sees each new plan at the next replay.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from ramify.attention.plan.work import TILES, WorkList
from ramify.core.errors import InputError, expected_got

ALIGN = 32  # int32 elements: regions start at 128 bytes
HEADER = 32


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The largest plan that fits."""

    rows: int = 64
    units: int = 1024  # of each tile size
    pieces: int = 256
    tokens: int = 1024  # gathered one by one
    slots: int = 1024  # partial results of one row

    @classmethod
    def of(cls, work: WorkList) -> Capacity:
        """What a work list needs."""
        return cls(
            rows=work.rows.shape[1],
            units=max(map(len, work.units.values())),
            pieces=len(work.pieces),
            tokens=work.tokens.shape[1],
            slots=work.num_slots,
        )

    def grown_to(self, need: Capacity) -> Capacity:
        """This capacity with every exceeded part at the next power of two."""
        parts = {part.name: getattr(need, part.name) for part in fields(self)}
        over = {
            name: 1 << (n - 1).bit_length() for name, n in parts.items() if n > getattr(self, name)
        }
        return replace(self, **over)


def unit_name(tile: int) -> str:
    """Name of the region that holds the units of a tile size."""
    return f"units_{tile}"


class PlanBuffer:
    """The arrays of the current work list as views of one device tensor."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_fixed = False
        self._turn = 0
        self._allocate(Capacity())

    def reserve(self, capacity: Capacity) -> None:
        """Fix the capacity and with it all addresses: larger plans raise InputError."""
        self._allocate(capacity)
        self.is_fixed = True

    def upload(self, work: WorkList) -> None:
        """Copy a work list, without waiting for the device."""
        need = Capacity.of(work)
        grown = self.capacity.grown_to(need)
        if grown != self.capacity:
            if self.is_fixed:
                raise InputError(expected_got("plan", f"at most {self.capacity}", need))
            self._allocate(grown)
        self._turn = 1 - self._turn
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        _write(self._views(self._host[self._turn]), work)
        self.device_ints.copy_(self._host[self._turn], non_blocking=True)
        if copied is not None:
            copied.record()

    def _allocate(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.shapes = {
            "header": (HEADER,),
            **{unit_name(tile): (capacity.units, 8) for tile in TILES},
            "pieces": (capacity.pieces, 8),
            "tokens": (4, capacity.tokens),
            "rows": (3, capacity.rows),
            "merge_indptr": (capacity.rows + 1,),
            "merge_slots": (capacity.slots,),
        }
        size = sum(_aligned(shape) for shape in self.shapes.values())
        on_gpu = self.device.type == "cuda"
        self._host = [torch.zeros(size, dtype=torch.int32, pin_memory=on_gpu) for _ in range(2)]
        self.device_ints = torch.zeros(size, dtype=torch.int32, device=self.device)
        self._copied = [torch.cuda.Event() if on_gpu else None for _ in range(2)]
        self.on_device = self._views(self.device_ints)

    def _views(self, buffer: Tensor) -> dict[str, Tensor]:
        views, begin = {}, 0
        for name, shape in self.shapes.items():
            views[name] = buffer[begin : begin + int(np.prod(shape))].view(shape)
            begin += _aligned(shape)
        return views


def _aligned(shape: tuple[int, ...]) -> int:
    return -(-int(np.prod(shape)) // ALIGN) * ALIGN


def _write(views: dict[str, Tensor], work: WorkList) -> None:
    host = {name: view.numpy() for name, view in views.items()}
    host["header"][0] = work.rows.shape[1]
    for tile, units in work.units.items():
        host[unit_name(tile)][: len(units)] = units
        host[unit_name(tile)][len(units) :, 7] = 0  # no work
    for name in ("pieces", "merge_indptr", "merge_slots"):
        array = getattr(work, name)
        host[name][: len(array)] = array
    for name in ("tokens", "rows"):
        array = getattr(work, name)
        host[name][:, : array.shape[1]] = array
