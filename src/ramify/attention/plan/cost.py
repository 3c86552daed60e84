"""What work costs on a GPU, and what else planners know of the device."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Microseconds of one SM while all of them work; defaults measured on an H200, bf16, D 128.

    A step is 64 tokens of one KV head: their K and V against the packed rows of a unit.
    """

    step_us: float = 0.95  # K and V come from memory
    reread_us: float = 0.75  # K and V were read by another unit before: they come from L2
    compute_us: float = 1.07  # nothing to wait for, 128 packed rows
    unit_us: float = 1.0  # start and end of a unit
    masked_part: float = 0.05  # of a read more, where the rows of a unit see different tokens
    partial_us: float = 0.09  # one more partial result of a row, in the merge of that row
    merge_us: float = 6.0  # any partial results at all: writing them, and the launch that merges
    launch_us: float = 6.0  # a launch, from the first plan entry to the last store


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How many workers a plan is cut for, and the costs to weigh.

    A worker is what runs one KV head's units one after another: an SM, or one of a few CTAs on it.
    """

    num_workers: int = 16  # per KV head
    packed_rows: int = 128  # rows x query heads per KV head of the widest unit
    fixed_cuts: int | None = None  # cut at multiples of so many tokens, whatever else is planned
    costs: CostTable = field(default_factory=CostTable)
