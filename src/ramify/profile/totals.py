"""Sums over a report: by kind of operator, of one component or of a whole generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ramify.profile.measured import Measured
from ramify.profile.operators.kinds import KINDS
from ramify.profile.report import ComponentReport, Report


@dataclass(frozen=True, kw_only=True)
class Total:
    """What operators of one kind, or all of them, come to."""

    kind: str
    calls: int
    flops: int
    bytes_moved: int  # with flash attention
    flash_s: float
    naive_s: float
    fused_s: float


ALL = "all"


def totals(parts: Sequence[ComponentReport], *, once: bool = False) -> dict[str, Total]:
    """Totals by kind, those that occur, in the order of the taxonomy.

    Args:
        parts: components, each counted as often as a generation runs it.
        once: count one pass of each instead.
    """
    return {kind: total for kind in KINDS if (total := _total(parts, kind, once)).calls}


def overall(found: Iterable[Total]) -> Total:
    """The sum of totals."""
    rows = list(found)
    return Total(
        kind=ALL,
        calls=sum(row.calls for row in rows),
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        flash_s=sum(row.flash_s for row in rows),
        naive_s=sum(row.naive_s for row in rows),
        fused_s=sum(row.fused_s for row in rows),
    )


def flash_speedup(parts: Sequence[ComponentReport]) -> float:
    """How many times longer everything takes at least when attention writes its matrix out."""
    total = overall(totals(parts).values())
    return total.naive_s / total.flash_s if total.flash_s else 1.0


def least_by_kind(parts: Sequence[ComponentReport], attention: str) -> dict[str, float]:
    """Least seconds of one pass of some parts by kind, attention being flash or naive."""
    return {
        kind: total.naive_s if attention == "naive" else total.flash_s
        for kind, total in totals(parts, once=True).items()
    }


def efficiency(parts: Sequence[ComponentReport], measured: Measured) -> dict[str, float]:
    """Least time over measured time by kind, of one pass of the parts that were measured.

    Kernels of one kind may hide in another (a product that normalises on its way), so 1 is no
    strict limit for a kind.
    """
    least = least_by_kind(parts, measured.attention)
    return {
        entry.kind: least.get(entry.kind, 0.0) / entry.seconds
        for entry in measured.kinds
        if entry.seconds
    }


def intensity(part: ComponentReport) -> float:
    """FLOPs of a pass per byte of weights, two bytes to a parameter: 1 for decoding at batch 1."""
    return overall(totals([part], once=True).values()).flops / (2 * max(1, part.num_params))


def num_params(report: Report) -> int:
    """Parameters of all components, modules that serve as two counted once."""
    seen = {(part.class_name, part.num_params): part.num_params for part in report.components}
    return sum(seen.values())


def _total(parts: Sequence[ComponentReport], kind: str, once: bool) -> Total:
    weighted = [
        (group, group.count * (1 if once else part.calls))
        for part in parts
        for group in part.groups
        if group.kind == kind
    ]
    return Total(
        kind=kind,
        calls=sum(times for _, times in weighted),
        flops=sum(times * group.flops for group, times in weighted),
        bytes_moved=sum(times * group.bytes_moved for group, times in weighted),
        flash_s=sum(times * group.flash_s for group, times in weighted),
        naive_s=sum(times * group.naive_s for group, times in weighted),
        fused_s=sum(times * group.fused_s for group, times in weighted),
    )
