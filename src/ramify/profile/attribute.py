"""From a trace to what every stretch of device time belongs to: kind, operator and module.

Every interval of the host belongs to the outermost operator with a formula, or to the attention
it lies in. On a GPU a kernel counts for the interval that its launch lies in; on a CPU the
interval itself counts. Ranges that `Recorder.marking` leaves name the modules.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ramify.profile.event_kinds import kind_of_event, kind_of_kernel
from ramify.profile.events import Event, launches
from ramify.profile.operators.attention import SDPA
from ramify.profile.operators.kinds import SPATIAL
from ramify.profile.operators.recorder import ATTENTION_MARK, MODULE_MARK
from ramify.profile.trace import Span, outermost

Events = Sequence[Event]
Shapes = tuple[tuple[int, ...], ...]
AttentionKinds = Mapping[Shapes, str]
"""Kind of an attention by the shapes of its queries and keys, where no range names it."""

ATTENTION_NAMES = ("aten::scaled_dot_product", "aten::_scaled_dot_product")


@dataclass(frozen=True, slots=True)
class Label:
    """What device time belongs to."""

    kind: str
    op: str
    module: str = ""
    shapes: Shapes = ()


@dataclass(frozen=True, slots=True)
class Work:
    """A stretch of device time: a kernel, or on a CPU an operator."""

    label: Label
    span: Span
    call: int  # several kernels may come of one call; unique where no call is known
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    launched_us: float = float("-inf")  # when the host's call was over; nobody waits for a CPU's


def works(
    events: Events,
    *,
    on_gpu: bool,
    attention_kinds: AttentionKinds | None = None,
) -> list[Work]:
    """What ran in a pass, in order of begin.

    Kernels that no known operator launched go by their names, see `kind_of_kernel`.

    Args:
        events: complete events of the pass, as torch.profiler exports them with shapes: those of
            the host, and the kernels launched there.
    """
    labelled = _labelled(events, attention_kinds or {})
    if on_gpu:
        return _kernels(events, labelled)
    return [Work(label, span, call) for call, (label, span) in enumerate(labelled)]


def replayed(found: Sequence[Work], pattern: Sequence[Work]) -> list[Work]:
    """Kernels of a CUDA graph with the labels of the pass that was captured.

    A graph launches without the host, so only order and names tell. Of as many kernels the n-th is
    the n-th of the pass, whatever a library has put in its place. Where some are missing or more,
    the n-th of a name is the n-th of that name, and others keep what their names say.
    """
    if len(found) == len(pattern):
        return [_relabelled(work, known) for work, known in zip(found, pattern, strict=True)]
    named: dict[str, list[Work]] = defaultdict(list)
    for work in pattern:
        named[work.span.name].append(work)
    seen: Counter[str] = Counter()
    relabelled = []
    for work in found:
        same, index = named[work.span.name], seen[work.span.name]
        seen[work.span.name] += 1
        relabelled.append(_relabelled(work, same[index]) if index < len(same) else work)
    return relabelled


def _relabelled(work: Work, known: Work) -> Work:
    return replace(work, label=known.label, call=known.call)


def _labelled(events: Events, attention_kinds: AttentionKinds) -> list[tuple[Label, Span]]:
    """Intervals of the host with their labels, none inside another, in order."""
    kinds: dict[str, str | None] = {}
    labels: dict[Span, Label] = {}
    for event in events:
        if event.cat not in ("cpu_op", "user_annotation"):
            continue
        name = event.name
        if name not in kinds:
            kinds[name] = kind_of_event(name)
        label = _label(event, kinds[name], attention_kinds)
        if label is not None:
            labels[Span(name, event.ts, event.dur)] = label
    spans = outermost(sorted(labels, key=lambda span: (span.begin_us, -span.duration_us)))
    modules = _modules(events, [span.begin_us for span in spans])
    return [
        (replace(labels[span], module=module), span)
        for span, module in zip(spans, modules, strict=True)
    ]


def _label(event: Event, kind: str | None, attention_kinds: AttentionKinds) -> Label | None:
    name = event.name
    if name.startswith(ATTENTION_MARK):
        marked, _, sizes = name.removeprefix(ATTENTION_MARK).partition(" of ")
        return Label(marked, SDPA, shapes=_shapes(json.loads(sizes)))
    if name.startswith(ATTENTION_NAMES):
        shapes = _shapes(event.arguments().input_dims)
        return Label(attention_kinds.get(shapes[:2], SPATIAL), SDPA, shapes=shapes)
    if kind is None:
        return None
    op = name.rstrip("_").replace("::", ".")
    return Label(kind, op, shapes=_shapes(event.arguments().input_dims))


def _shapes(dims: Any) -> Shapes:
    """Shapes of tensors, those in lists included; scalars have none."""
    if dims and all(isinstance(size, int) for size in dims):
        return (tuple(dims),)
    return tuple(shape for part in dims if isinstance(part, list) for shape in _shapes(part))


def _modules(events: Events, moments: Sequence[float]) -> list[str]:
    """The innermost marked module at each of some moments in order, "" outside of all."""
    ranges = sorted(
        (event.ts, event.end_us, event.name.removeprefix(MODULE_MARK))
        for event in events
        if event.cat == "user_annotation" and event.name.startswith(MODULE_MARK)
    )
    paths, stack, index = [], [], 0
    for moment in moments:
        while index < len(ranges) and ranges[index][0] <= moment:
            stack.append(ranges[index])
            index += 1
        # modules nest, so one that is over hides none that is not
        while stack and stack[-1][1] <= moment:
            stack.pop()
        paths.append(stack[-1][2] if stack else "")
    return paths


def _kernels(events: Events, labelled: Sequence[tuple[Label, Span]]) -> list[Work]:
    """What ran on the device, with the label of the interval that launched it, in order."""
    begins = [span.begin_us for _, span in labelled]
    found: list[Work] = []
    for event, called in launches(events):
        if called is None:
            continue
        index = bisect_right(begins, called.ts) - 1
        is_inside = index >= 0 and called.ts < labelled[index][1].end_us
        label = labelled[index][0] if is_inside else _unlaunched(event.name)
        call = index if is_inside else -1 - len(found)
        found.append(_kernel(event, label, call, called.end_us))
    return sorted(found, key=lambda work: work.span.begin_us)


def _kernel(event: Event, label: Label, call: int, launched_us: float) -> Work:
    found = event.arguments()
    span = Span(event.name, event.ts, event.dur)
    return Work(label, span, call, found.grid, found.block, launched_us)


def _unlaunched(kernel: str) -> Label:
    return Label(kind_of_kernel(kernel), kernel)
