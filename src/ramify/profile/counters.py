"""Cache hit rates by kind of operator, from what Nsight Compute wrote of the same passes.

    ncu --csv --page raw --metrics gpu__time_duration.sum,l1tex__t_sector_hit_rate.pct,\\
        lts__t_sector_hit_rate.pct ... > counters.csv

A kernel finds its kind by name, grid and block among those that a measured report has.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ramify.core.errors import InputError, expected_got
from ramify.profile.operators.kinds import KINDS, UNKNOWN
from ramify.profile.report import CacheRates, Report, measurements

TIME = "gpu__time_duration.sum"
L1, L2 = "l1tex__t_sector_hit_rate.pct", "lts__t_sector_hit_rate.pct"
NAME, GRID, BLOCK = "Kernel Name", "Grid Size", "Block Size"
NEEDED = (NAME, GRID, BLOCK, L1, L2)
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SECONDS |= {"nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0}

KernelKey = tuple[str, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class KernelCounters:
    """One launch as Nsight Compute saw it."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    seconds: float  # 1 for each where no time was asked for, so that launches weigh the same
    l1_hit_rate: float  # of 1
    l2_hit_rate: float


def read_counters(path: Path) -> list[KernelCounters]:
    """Read a CSV of `ncu --csv --page raw`, messages of ncu before it left out.

    Raises InputError for a file without such a table, or without one of the columns.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(expected_got(str(path), "a readable CSV of ncu", error)) from error
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        raise InputError(expected_got(str(path), "the header of `ncu --csv --page raw`", "none"))
    header, units, *rows = csv.reader(lines[begin:])
    if missing := [name for name in NEEDED if name not in header]:
        raise InputError(expected_got(str(path), f"columns {', '.join(NEEDED)}", f"no {missing}"))
    named = dict(zip(header, units, strict=False))
    return [
        _kernel(dict(zip(header, row, strict=False)), named, path) for row in rows if len(row) > 1
    ]


def _kernel(row: Mapping[str, str], units: Mapping[str, str], path: Path) -> KernelCounters:
    try:
        scale = SECONDS[units[TIME]] if TIME in row else 1.0
        return KernelCounters(
            kernel=row[NAME],
            grid=_sizes(row[GRID]),
            block=_sizes(row[BLOCK]),
            seconds=_number(row[TIME]) * scale if TIME in row else 1.0,
            l1_hit_rate=_number(row[L1]) / 100,
            l2_hit_rate=_number(row[L2]) / 100,
        )
    except (KeyError, ValueError) as error:
        wanted = "numbers, and times in " + ", ".join(SECONDS)
        raise InputError(expected_got(f"{path}, kernel {row.get('ID')}", wanted, error)) from error


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def with_counters(report: Report, counters: Sequence[KernelCounters]) -> Report:
    """The report with cache hit rates by kind, weighted by time.

    Kernels that it does not have, or not with that grid, count as unknown. Raises InputError for a
    report without kernels: one that was not measured on a GPU.
    """
    kinds = _kinds(report)
    if not kinds:
        wanted = "one measured on a GPU, which lists kernels"
        raise InputError(expected_got(f"report {report.name}", wanted, "no kernels"))
    found: dict[str, list[KernelCounters]] = defaultdict(list)
    for entry in counters:
        key = (base_name(entry.kernel), entry.grid, entry.block)
        found[kinds.get(key, UNKNOWN)].append(entry)
    return replace(
        report, cache=tuple(_rates(kind, found[kind]) for kind in KINDS if kind in found)
    )


def base_name(kernel: str) -> str:
    """A kernel without its return type, template arguments and parameters."""
    return re.split(r"[<(]", kernel.removeprefix("void "), maxsplit=1)[0].strip()


def _kinds(report: Report) -> dict[KernelKey, str]:
    """The kind of each kernel; of several that share one, that which spends most time in it."""
    seconds: dict[KernelKey, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for key, kind, spent_s in _kernels(report):
        seconds[key][kind] += spent_s
    return {key: max(by_kind, key=lambda kind: by_kind[kind]) for key, by_kind in seconds.items()}


def _kernels(report: Report) -> Iterator[tuple[KernelKey, str, float]]:
    for _, _, measured in measurements(report):
        for entry in measured.kernels:
            yield (base_name(entry.kernel), entry.grid, entry.block), entry.kind, entry.seconds


def _rates(kind: str, entries: Sequence[KernelCounters]) -> CacheRates:
    seconds = sum(entry.seconds for entry in entries)
    return CacheRates(
        kind=kind,
        launches=len(entries),
        l1_hit_rate=sum(entry.seconds * entry.l1_hit_rate for entry in entries) / seconds,
        l2_hit_rate=sum(entry.seconds * entry.l2_hit_rate for entry in entries) / seconds,
    )
