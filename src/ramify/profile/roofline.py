"""The least time of an operator: its arithmetic or its bytes, whichever takes longer.

Naive attention writes its similarity matrix out; flash attention (arXiv 2205.14135) does not.
A fused bound leaves out operators that a compiler can move into the one before them.
"""

from __future__ import annotations

from typing import Literal

from ramify.profile.hardware import Hardware
from ramify.profile.operators.kinds import FUSABLE
from ramify.profile.operators.record import OpRecord

Attention = Literal["flash", "naive"]
ATTENTIONS: tuple[Attention, ...] = ("flash", "naive")


def least_s(record: OpRecord, machine: Hardware, attention: Attention = "flash") -> float:
    """Seconds that an operator takes at least on a machine."""
    moved = record.bytes_moved + (record.matrix_bytes_moved if attention == "naive" else 0)
    return max(record.flops / machine.peak(record.dtype), moved / machine.bytes_per_s)


def fused_s(record: OpRecord, machine: Hardware, attention: Attention = "flash") -> float:
    """As `least_s`, elementwise work and copies taken for free."""
    return 0.0 if record.kind in FUSABLE else least_s(record, machine, attention)
