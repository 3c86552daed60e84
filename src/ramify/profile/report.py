"""A characterisation as data: everything that tables, comparisons and pages are drawn from.

It goes to JSON and back without loss; `schema()` describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ramify.core.errors import InputError, expected_got
from ramify.profile.hardware import Hardware
from ramify.profile.measured import Measured
from ramify.profile.operators.kinds import UNKNOWN, is_attention
from ramify.profile.operators.record import OpRecord
from ramify.profile.roofline import fused_s, least_s

SCHEMA_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class OpGroup:
    """Equal calls of one operator in one pass of a component."""

    op: str
    kind: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]  # of the tensors it reads
    count: int
    # of one call
    flops: int
    bytes_moved: int
    matrix_bytes_moved: int  # more of it, if attention writes its similarity matrix
    flash_s: float  # least time on the report's machine
    naive_s: float
    fused_s: float  # flash attention, elementwise work and copies free


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """One attention, in the order of the pass."""

    kind: str
    module: str
    batch: int
    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    kv_source: str
    flops: int
    matrix_bytes: int  # of the similarity matrix, once
    flash_s: float


@dataclass(frozen=True, kw_only=True)
class ComponentReport:
    """One pass of a module, and how often a generation runs it."""

    name: str
    class_name: str
    num_params: int
    calls: int
    batch: int  # of a pass, guidance included
    groups: tuple[OpGroup, ...]
    attention: tuple[AttentionCall, ...]
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """The denoiser, or what runs most, at another size."""

    size: str
    value: int
    flops_by_kind: dict[str, int]
    flash_s_by_kind: dict[str, float]
    matrix_bytes: int  # of all similarity matrices of a pass


@dataclass(frozen=True, kw_only=True)
class CacheRates:
    """Hit rates of one kind's kernels, out of 1, weighted by time."""

    kind: str
    launches: int
    l1_hit_rate: float
    l2_hit_rate: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One model at one set of sizes on one machine's roofline."""

    schema_version: int
    name: str
    title: str
    stands_for: str
    source: str
    sizes: dict[str, int]
    batch: int
    steps: int
    guidance: bool
    hardware: Hardware
    components: tuple[ComponentReport, ...]
    sweep: tuple[SweepPoint, ...] = ()
    measured: tuple[Measured, ...] = ()  # of an object in memory, all its components together
    cache: tuple[CacheRates, ...] = ()  # where Nsight Compute's counters were read

    @property
    def main(self) -> ComponentReport:
        """The component with most FLOPs over a generation."""
        return max(self.components, key=lambda part: part.calls * flops_of(part))

    def component(self, name: str) -> ComponentReport:
        """A component by name. Raises InputError where there is none."""
        for part in self.components:
            if part.name == name:
                return part
        wanted = "one of " + ", ".join(part.name for part in self.components)
        raise InputError(expected_got("component", wanted, repr(name)))


def measurements(report: Report) -> list[tuple[str, list[ComponentReport], Measured]]:
    """Everything that was measured: a name, the parts whose pass it is, the measurement."""
    found = [
        (part.name, [part], measured) for part in report.components for measured in part.measured
    ]
    whole = [(report.name, list(report.components), measured) for measured in report.measured]
    return found + whole


def flops_of(part: ComponentReport) -> int:
    """FLOPs of one pass."""
    return sum(group.count * group.flops for group in part.groups)


def unknown_ops(report: Report) -> dict[str, int]:
    """Operators without a formula, and how often each is called in a generation."""
    counts: dict[str, int] = {}
    for part in report.components:
        for group in part.groups:
            if group.kind == UNKNOWN:
                counts[group.op] = counts.get(group.op, 0) + part.calls * group.count
    return counts


def covered_share(report: Report) -> float:
    """Share of the bytes of a generation that are moved by operators with a formula.

    FLOPs of an unknown operator are unknown, its bytes are not: so coverage counts bytes.
    """
    moved = {True: 0, False: 0}
    for part in report.components:
        for group in part.groups:
            moved[group.kind == UNKNOWN] += part.calls * group.count * group.bytes_moved
    total = sum(moved.values())
    return moved[False] / total if total else 1.0


def group_records(records: Sequence[OpRecord], machine: Hardware) -> tuple[OpGroup, ...]:
    """Records of a pass, equal ones put together, in order of first appearance."""
    counts: dict[tuple[Any, ...], int] = {}
    first: dict[tuple[Any, ...], OpRecord] = {}
    for record in records:
        key = (record.op, record.kind, record.dtype, record.shapes, record.bytes_moved)
        first.setdefault(key, record)
        counts[key] = counts.get(key, 0) + 1
    return tuple(
        OpGroup(
            op=record.op,
            kind=record.kind,
            dtype=record.dtype,
            shapes=record.shapes,
            count=counts[key],
            flops=record.flops,
            bytes_moved=record.bytes_moved,
            matrix_bytes_moved=record.matrix_bytes_moved,
            flash_s=least_s(record, machine),
            naive_s=least_s(record, machine, "naive"),
            fused_s=fused_s(record, machine),
        )
        for key, record in first.items()
    )


def attention_calls(records: Sequence[OpRecord], machine: Hardware) -> tuple[AttentionCall, ...]:
    """The attentions of a pass, in order."""
    return tuple(
        AttentionCall(
            kind=record.kind,
            module=record.module,
            batch=shape.batch,
            heads=shape.heads,
            q_len=shape.q_len,
            kv_len=shape.kv_len,
            head_dim=shape.head_dim,
            kv_source=shape.kv_source,
            flops=record.flops,
            matrix_bytes=shape.matrix_bytes,
            flash_s=least_s(record, machine),
        )
        for record in records
        if (shape := record.attention) is not None and is_attention(record.kind)
    )


def save_report(report: Report, path: Path) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def load_report(path: Path) -> Report:
    """Read a report back. Raises InputError for a file that is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(expected_got(str(path), "a report written as JSON", error)) from error


def schema() -> dict[str, Any]:
    """JSON Schema of a report."""
    return msgspec.json.schema(Report)
