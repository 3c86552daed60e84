"""One traced pass as a file for ui.perfetto.dev, no larger than asked.

Traces of whole generations reach gigabytes, which no viewer opens. So only one pass is written, and
where even that is too much, what takes least time is left out first.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ramify.profile.events import Event


def save_trace(events: Sequence[Event], path: Path, max_bytes: int) -> int:
    """Write the events of a pass, and return how many were cut.

    Args:
        events: of the host, and the kernels launched there.
        path: ends in .json or .json.gz.
        max_bytes: of the JSON, before it is packed.
    """
    kept, size = [], 0
    for event in sorted(events, key=lambda event: -event.dur):
        size += len(msgspec.json.encode(event)) + 2
        if size > max_bytes:
            break
        kept.append(event)
    kept.sort(key=lambda event: event.ts)
    cut = len(events) - len(kept)
    content = msgspec.json.encode({"traceEvents": kept, "ramify_events_left_out": cut})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return cut
