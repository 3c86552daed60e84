"""One traced pass as a file for ui.perfetto.dev, no larger than asked.

Traces of whole generations reach gigabytes, which no viewer opens. So only one pass is written, and
where even that is too much, what takes least time is left out first.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ramify.profile.trace import ON_DEVICE, launches


def save_trace(
    events: Sequence[dict[str, Any]], window: tuple[float, float], path: Path, max_bytes: int
) -> int:
    """Write the events of a window, with the kernels launched in it, and return how many were cut.

    Args:
        events: complete events of a trace, as torch.profiler exports them.
        window: begin and end of the pass on the host, microseconds.
        path: ends in .json or .json.gz.
        max_bytes: of the JSON, before it is packed.
    """
    kept, size = [], 0
    inside = _inside(events, window)
    for event in sorted(inside, key=lambda event: -event["dur"]):
        size += len(msgspec.json.encode(event)) + 2
        if size > max_bytes:
            break
        kept.append(event)
    kept.sort(key=lambda event: event["ts"])
    cut = len(inside) - len(kept)
    content = msgspec.json.encode({"traceEvents": kept, "ramify_events_left_out": cut})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return cut


def _inside(events: Sequence[dict[str, Any]], window: tuple[float, float]) -> list[dict[str, Any]]:
    begin, end = window
    launched = [event for called, event in launches(events) if called and begin <= called < end]
    host = [event for event in events if event.get("cat") not in ON_DEVICE]
    return launched + [event for event in host if begin <= event["ts"] < end]
