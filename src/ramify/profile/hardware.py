"""Peak rates of the machines that rooflines are drawn for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramify.core.errors import InputError, expected_got

TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A device as a roofline sees it; dense peaks of its data sheet."""

    name: str
    flops_per_s: Mapping[str, float]  # by dtype; others run at the rate of float32
    bytes_per_s: float

    def peak(self, dtype: str) -> float:
        """FLOPs per second of products of a dtype."""
        return self.flops_per_s.get(dtype, self.flops_per_s["float32"])

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which bfloat16 products are bound by arithmetic."""
        return self.peak("bfloat16") / self.bytes_per_s


def _gpu(name: str, half: float, single: float, terabytes_per_s: float) -> Hardware:
    peaks = {"bfloat16": half * TERA, "float16": half * TERA, "float32": single * TERA}
    return Hardware(name=name, flops_per_s=peaks, bytes_per_s=terabytes_per_s * TERA)


# products in float32 run as TF32 only where the user asks for it, so float32 is the plain rate
HARDWARE = {
    "a100": _gpu("A100 80 GB", 312, 19.5, 2.04),
    "h100": _gpu("H100 SXM", 989, 67, 3.35),
    "h200": _gpu("H200", 989, 67, 4.8),
    # a desktop's order of magnitude, where the data sheet says nothing about "the" CPU
    "cpu": _gpu("CPU", 1, 1, 0.05),
}
"""By the names users give."""


def find_hardware(name: str) -> Hardware:
    """The machine of a name. Raises InputError for one we have no numbers of."""
    if name not in HARDWARE:
        raise InputError(expected_got("hardware", "one of " + ", ".join(HARDWARE), repr(name)))
    return HARDWARE[name]
