"""From a trace to seconds by kind of operator: a kernel belongs to what launched it.

Every interval of the host belongs to the outermost operator with a formula, or to the attention
it lies in. On a GPU a kernel counts for the interval that its launch lies in; on a CPU the
interval itself counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from ramify.profile.operators.formulas import formula_of, registered_kind
from ramify.profile.operators.kinds import ELEMENTWISE, KINDS
from ramify.profile.timeline import own_times
from ramify.profile.trace import Span, launches, outermost

ATTENTION_RANGE = "ramify attention: "
"""Starts the name of the range around each attention; its kind follows."""

Events = Sequence[dict[str, Any]]


def seconds_by_kind(
    events: Events, begin_us: float, end_us: float, *, on_gpu: bool
) -> dict[str, float]:
    """Seconds of the device by kind within a window of a trace.

    Kernels that no known operator launched count as elementwise work and copies, which they
    nearly always are. Moments that two kernels share count once.

    Args:
        events: complete events of a trace, as torch.profiler exports them.
        begin_us, end_us: the window, on the trace's clock, in which the host called.
    """
    labelled = _labelled(events, begin_us, end_us)
    spans = _kernels(events, labelled, begin_us, end_us) if on_gpu else labelled
    seconds: dict[str, float] = defaultdict(float)
    for span, own_us in zip(spans, own_times(spans), strict=True):
        seconds[span.name] += own_us * 1e-6
    return {kind: seconds[kind] for kind in KINDS if kind in seconds}


def kind_of_event(name: str) -> str | None:
    """The kind of a host event: an attention's range or a known operator; None for others."""
    if name.startswith(ATTENTION_RANGE):
        return name.removeprefix(ATTENTION_RANGE)
    namespace, _, short = name.partition("::")
    if not short:
        return None
    found = registered_kind(f"{namespace}.{short.rstrip('_')}")
    return _pointwise_kind(namespace, short) if found is None else found


def _pointwise_kind(namespace: str, short: str) -> str | None:
    packet = getattr(getattr(torch.ops, namespace), short, None)
    for overload in packet.overloads() if packet is not None else ():
        known = formula_of(getattr(packet, overload))
        if known is not None:
            return known[0]
    return None


def _labelled(events: Events, begin_us: float, end_us: float) -> list[Span]:
    """Intervals of the host, named by kind, none inside another, in order."""
    found = [
        Span(kind, event["ts"], event["dur"])
        for event in events
        if begin_us <= event["ts"] < end_us
        and event.get("cat") in ("cpu_op", "user_annotation")
        and (kind := kind_of_event(event["name"])) is not None
    ]
    return outermost(sorted(found, key=lambda span: (span.begin_us, -span.duration_us)))


def _kernels(
    events: Events, labelled: Sequence[Span], begin_us: float, end_us: float
) -> list[Span]:
    """What ran on the device, named by the kind of the interval that launched it, in order."""
    begins = [span.begin_us for span in labelled]
    found = []
    for called_us, event in launches(events):
        if called_us is None or not begin_us <= called_us < end_us:
            continue
        index = bisect_right(begins, called_us) - 1
        is_inside = index >= 0 and called_us < labelled[index].end_us
        kind = labelled[index].name if is_inside else ELEMENTWISE
        found.append(Span(kind, event["ts"], event["dur"]))
    return sorted(found, key=lambda span: span.begin_us)
