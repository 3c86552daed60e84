"""What a measured pass is kept as: times by kind, operator, module and kernel, with intervals.

Every time is the median of the repeats, with the lowest and the highest. For n repeats whose times
are independent the true median lies between those two with probability 1 - 2^(1-n): 94 % for 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRACE_WAITS = 0.02
"""A GPU that waits for the host for more of the traced time is not what bounds that time."""

Waits = Literal["never", "traced", "always"]
"""Whether a GPU waits for the host: `traced` is under the profiler alone."""

WAITS: dict[Waits, str] = {
    "never": "",
    "traced": "the traced pass waited for the host",
    "always": "the GPU waits for the host",
}
"""The same in words; nothing to say of a GPU that is the bottleneck, or of a CPU."""


@dataclass(frozen=True, kw_only=True)
class KindTime:
    """Device time of one kind in one pass."""

    kind: str
    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """Device time of equal calls of one operator in one pass."""

    op: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]  # of the tensors it reads, scalars left out
    count: int
    seconds: float
    low_s: float
    high_s: float
    least_s: float = 0.0  # of all those calls on the report's roofline; 0 where it is not known


@dataclass(frozen=True, kw_only=True)
class ModuleTime:
    """Device time of what a module calls, parts of it included up to some depth."""

    module: str
    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class KernelTime:
    """Device time of the launches of one kernel with one grid, for one kind of operator."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    kind: str
    count: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MeasuredPass:
    """How a pass ran: by the clock without the profiler, and what the profiler saw of others.

    The shares are of the traced passes' own time, from before the host launches the first to after
    it has waited for the last; see `profile.window`.
    """

    device: str
    attention: str  # flash: as torch chooses; naive: its math backend
    run: str = "eager"  # or graphs, compiled
    repeats: int  # 0 where it failed
    wall_s: float = 0.0  # median, not traced
    wall_low_s: float = 0.0
    wall_high_s: float = 0.0
    traced_s: float  # median, of the traced passes
    busy_share: float = 0.0  # something runs on the device
    gap_share: float = 0.0  # a GPU's own pauses, from one kernel to the next
    waiting_share: float = 0.0  # pauses in which a GPU waits for the host
    is_launch_bound: bool = False  # a GPU that waits for the host, not traced
    error: str | None = None  # why there is no measurement

    @property
    def attributed_share(self) -> float:
        """Part of the traced time that is told apart: kernels, and the pauses between them."""
        return self.busy_share + self.gap_share

    @property
    def tracing_overhead(self) -> float:
        """How many times longer a traced pass takes; 0 where nothing was measured."""
        return self.traced_s / self.wall_s if self.wall_s else 0.0

    @property
    def waits(self) -> Waits:
        """Whether a GPU waits for the host; only where it never does is the traced time its own."""
        if self.is_launch_bound:
            return "always"
        return "traced" if self.waiting_share > TRACE_WAITS else "never"


@dataclass(frozen=True, kw_only=True)
class Measured(MeasuredPass):
    """One pass as it ran on a device."""

    kinds: tuple[KindTime, ...] = ()
    operators: tuple[OperatorTime, ...] = ()
    modules: tuple[ModuleTime, ...] = ()
    kernels: tuple[KernelTime, ...] = ()

    @property
    def busy_s(self) -> float:
        """Device time of a pass."""
        return sum(entry.seconds for entry in self.kinds)


def agree(first: Measured, second: Measured) -> bool:
    """Whether two measurements of the same pass say the same: their intervals meet."""
    return first.wall_low_s <= second.wall_high_s and second.wall_low_s <= first.wall_high_s
