"""What do the parts of an attention layer cost on this GPU?  (`ramify bench calibrate`)

Each term of `cost_model` is the difference of two forests that differ in its count and, as far as
can be, in nothing else; what they do differ in besides is taken off with the terms known by then.
Forests are large enough that every SM has the same number of units, so a term is what one SM spends
while all of them work. Plans are node and per_branch, which weigh nothing with the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ramify.attention import AttentionPlan, HeadShape, TreeAttention
from ramify.attention.plan.cost import CostTable
from ramify.bench.attention.achieved import measure_plan
from ramify.bench.attention.cost_model import NO_COSTS, Costs, Work, work_of
from ramify.bench.attention.shapes import Heads, TreeShape, levels
from ramify.bench.attention.timers import Timer, timer_for
from ramify.bench.env import Environment, environment
from ramify.core.errors import InputError, expected_got

HEADS = Heads()  # 32/8 heads of 128 in bfloat16: the table is of these
MOST_US = 1000.0  # of any term
HALVINGS = 50


@dataclass(frozen=True, kw_only=True)
class Point:
    """One forest and the method that it is measured with."""

    method: str
    tree: TreeShape


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Two points whose times differ by one term more than by what is known already."""

    term: str
    small: Point | None  # None: the large one stands alone
    large: Point


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A point with its time, and the time that the finished table gives it."""

    term: str
    method: str
    shape: str
    us: float
    predicted_us: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The table of one GPU, and what it was taken from."""

    question: str  # always "calibrate"
    backend: str
    num_sms: int
    num_busy_sms: int  # what a backend has workers for; costs are of one of these
    heads: str
    head_dim: int
    dtype: str
    costs: CostTable
    volume_us: float  # of the partial results of 16 packed rows, which the table does not have
    points: list[Measured]
    environment: Environment


def calibrate(
    device: torch.device, *, backend: str = "auto", repeats: int = 30, commit: str | None = None
) -> Calibration:
    """Measure the table on a GPU; about 5 GB of its memory and a few seconds.

    Args:
        backend: of TreeAttention.
        commit: of the sources, where they are a copy.
    Raises:
        InputError: the device is not a GPU.
    """
    if device.type != "cuda":
        raise InputError(expected_got("device", "an NVIDIA GPU to calibrate", device))
    timer = timer_for(device)
    op = _open("node", device, torch.bfloat16, backend)
    num_sms = torch.cuda.get_device_properties(device).multi_processor_count
    busy = busy_sms(op, num_sms)

    def measure(point: Point) -> tuple[AttentionPlan, float]:
        return measure_point(point, device, timer, backend, repeats)

    costs, points = solve(probes(busy), measure, op.heads, busy)
    return Calibration(
        question="calibrate",
        backend=op.backend,
        num_sms=num_sms,
        num_busy_sms=busy,
        heads=HEADS.name,
        head_dim=HEADS.head_dim,
        dtype="bfloat16",
        costs=costs.table,
        volume_us=costs.volume_us,
        points=points,
        environment=environment(commit),
    )


def busy_sms(op: TreeAttention, num_sms: int) -> int:
    """SMs that a backend keeps busy: workers come in equal numbers per KV head."""
    tuning = op.tuning
    return num_sms if tuning is None else min(num_sms, tuning.num_workers * op.heads.num_kv_heads)


def measure_point(
    point: Point, device: torch.device, timer: Timer, backend: str, repeats: int
) -> tuple[AttentionPlan, float]:
    """The plan of a point, and the median microseconds of one layer."""
    op = _open(point.method, device, torch.bfloat16, backend)
    forest = point.tree.forest()
    plan = op.plan(forest)
    return plan, measure_plan(op, forest, timer, repeats=repeats).p50_us


def _open(method: str, device: torch.device, dtype: torch.dtype, backend: str) -> TreeAttention:
    return TreeAttention(
        HEADS.num_q_heads,
        HEADS.num_kv_heads,
        HEADS.head_dim,
        dtype=dtype,
        device=device,
        method=method,
        backend=backend,
    )


def requests(count: int, tokens: int, rows: int = 1, nodes: int = 1) -> TreeShape:
    """Separate requests: chains of `nodes` nodes of `tokens` tokens, `rows` rows at each end."""
    parent = [-1 if place % nodes == 0 else place - 1 for place in range(count * nodes)]
    ends = range(nodes - 1, count * nodes, nodes)
    return TreeShape(
        name=f"{count} x {nodes} nodes x {tokens} tokens, {rows} rows",
        parent=tuple(parent),
        length=(tokens,) * len(parent),
        query_node=tuple(end for end in ends for _ in range(rows)),
    )


def probes(num_sms: int) -> list[Probe]:
    """In the order in which they can be solved; counts are multiples of the SMs."""
    many, few = 2 * num_sms, max(1, num_sms // 4)
    # fewer units than SMs, so that none waits for another
    deep = max(4, num_sms * 3 // (4 * HEADS.num_kv_heads))
    node, alone = "node", "per_branch"
    return [
        _probe("step", node, requests(many, 2048), requests(many, 4096)),
        _probe("unit", node, requests(8 * num_sms, 64), requests(32 * num_sms, 64)),
        Probe(term="launch", small=None, large=Point(method=node, tree=requests(1, 64))),
        # one row whose nodes all SMs read at the same time: what is left is the merge of that row
        _probe("partial", node, requests(1, 64, nodes=2), requests(1, 64, nodes=deep)),
        # eight requests, and eight nodes of a request: as many units, once with partials to merge
        _probe(
            "volume",
            node,
            requests(16 * num_sms, 64, rows=4),
            requests(2 * num_sms, 64, rows=4, nodes=8),
        ),
        _probe("compute", node, requests(few, 2048, rows=256), requests(few, 4096, rows=256)),
        _probe("reread", alone, levels([1, many], [2048, 64]), levels([1, many], [4096, 64])),
    ]


def _probe(term: str, method: str, small: TreeShape, large: TreeShape) -> Probe:
    return Probe(
        term=term,
        small=Point(method=method, tree=small),
        large=Point(method=method, tree=large),
    )


def solve(
    chosen: Sequence[Probe],
    measure: Callable[[Point], tuple[AttentionPlan, float]],
    heads: HeadShape,
    num_sms: int,
) -> tuple[Costs, list[Measured]]:
    """Measure every probe, then take its term from the difference.

    Args:
        measure: the plan that was used at a point, and the microseconds of one layer.
    Returns:
        the table, and all points with what the table predicts for them. A term that would come
        out negative is 0.
    """
    costs, seen = NO_COSTS, []
    for probe in chosen:
        points = [point for point in (probe.small, probe.large) if point is not None]
        results = [measure(point) for point in points]
        works = [work_of(plan, heads) for plan, _ in results]
        times = [us for _, us in results]
        costs = _with_term(costs, f"{probe.term}_us", works, times, num_sms)
        seen += [(probe.term, *each) for each in zip(points, works, times, strict=True)]
    return costs, [
        Measured(
            term=term,
            method=point.method,
            shape=point.tree.name,
            us=us,
            predicted_us=work.predicted_us(costs, num_sms),
        )
        for term, point, work, us in seen
    ]


def _with_term(
    costs: Costs, name: str, works: Sequence[Work], times: Sequence[float], num_sms: int
) -> Costs:
    """The table with one term set so that the difference of the times is what it predicts."""

    def difference(values: Sequence[float]) -> float:
        return values[-1] - (values[0] if len(values) > 1 else 0.0)

    low, high = 0.0, MOST_US
    # the difference rises with the term, and not always in a straight line
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        guess = replace(costs, **{name: middle})
        found = difference([work.predicted_us(guess, num_sms) for work in works])
        low, high = (middle, high) if found < difference(times) else (low, middle)
    return replace(costs, **{name: low})
