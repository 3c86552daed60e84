"""Events of a trace as torch.profiler exports them, read as far as they are needed.

A few passes leave a hundred thousand events, and most of their bytes are arguments that nobody asks
for. So arguments stay JSON until somebody does.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

CALLS = ("cuda_runtime", "cuda_driver")
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")

Range = tuple[float, float]
"""Begin and end on the trace's clock, microseconds."""


class Arguments(msgspec.Struct, frozen=True, gc=False, rename={"input_dims": "Input Dims"}):
    """What an event says beside its name, as far as we use it."""

    correlation: int | None = None  # the same for a call and what it launched
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    input_dims: Any = ()  # of the tensors that an operator reads, nested as they are in lists


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event; complete ones (`ph` X) have a begin and a duration, in microseconds."""

    name: str
    ts: float = 0.0
    dur: float = 0.0
    cat: str = ""
    ph: str = "X"
    pid: int | str = 0
    tid: int | str = 0
    args: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def end_us(self) -> float:
        """When it was over."""
        return self.ts + self.dur

    def arguments(self) -> Arguments:
        """Those that we use, decoded."""
        return msgspec.json.decode(self.args, type=Arguments)


class _File(msgspec.Struct):
    traceEvents: list[Event]


def read_events(path: Path) -> list[Event]:
    """The complete events of a trace, packed or not."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [event for event in _DECODER.decode(content).traceEvents if event.ph == "X"]


_DECODER = msgspec.json.Decoder(_File)


def launches(events: Sequence[Event]) -> Iterator[tuple[Event, Event | None]]:
    """What ran on the device, each with the call that launched it, where known."""
    calls = {event.arguments().correlation: event for event in events if event.cat in CALLS}
    calls.pop(None, None)
    for event in events:
        if event.cat in ON_DEVICE:
            yield event, calls.get(event.arguments().correlation)


def split(events: Sequence[Event], ranges: Sequence[Range]) -> list[list[Event]]:
    """Events by the range of the host that they belong to; those outside of all are left out.

    What ran on the device belongs to the range in which it was launched, as it may run long after.

    Args:
        ranges: in order, none inside another.
    """
    parts: list[list[Event]] = [[] for _ in ranges]
    begins = [begin for begin, _ in ranges]
    for event, moment in _moments(events):
        index = bisect_right(begins, moment) - 1
        if index >= 0 and moment < ranges[index][1]:
            parts[index].append(event)
    return parts


def _moments(events: Sequence[Event]) -> Iterator[tuple[Event, float]]:
    """Events with the moment at which the host began or launched them."""
    for event in events:
        if event.cat not in ON_DEVICE:
            yield event, event.ts
    for event, call in launches(events):
        if call is not None:
            yield event, call.ts
