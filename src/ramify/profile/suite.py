"""The suite: which models are set side by side, and the row that each becomes.

Analytically that is every preset. Measured it is the models that stand for those of Generative AI
Beyond LLMs (arXiv 2312.14385), its video model at several lengths. Both have Ramify's own decode
step beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ramify.profile.measured import Measured, MeasuredPass
from ramify.profile.operators.kinds import ATTENTION, CONVOLUTION, ELEMENTWISE, LINEAR
from ramify.profile.own_step import NAME as OWN_STEP
from ramify.profile.presets.preset import preset_names
from ramify.profile.report import ComponentReport, Report, covered_share
from ramify.profile.totals import flash_speedup, least_by_kind, overall, totals


@dataclass(frozen=True, kw_only=True)
class SuiteEntry:
    """A model at one set of sizes."""

    target: str  # a preset, a config directory, or Ramify's own step
    sizes: dict[str, int] = field(default_factory=dict)
    only: tuple[str, ...] = ()  # components; all where none is named

    @property
    def label(self) -> str:
        """`modelscope frames=8`."""
        return " ".join(
            [Path(self.target).name, *(f"{name}={size}" for name, size in self.sizes.items())]
        )


FRAMES = (8, 32, 64)
"""Lengths of the video model beside its own 16 frames."""

PAPER = "sd15 sdxl if_xl sr_256 amused muse_3b parti_20b phenaki llama_7b modelscope".split()

MEASURED = (
    *(SuiteEntry(target=name) for name in PAPER),
    *(
        SuiteEntry(target="modelscope", sizes={"frames": frames}, only=("denoiser",))
        for frames in FRAMES
    ),
    SuiteEntry(target=OWN_STEP),
)


def entries(targets: Sequence[str], *, is_measured: bool) -> list[SuiteEntry]:
    """What the suite runs: what is named, or else all, or what is worth measuring.

    A model that is measured at several sizes comes at all of them.
    """
    if not is_measured:
        return [SuiteEntry(target=target) for target in targets or (*preset_names(), OWN_STEP)]
    if not targets:
        return list(MEASURED)
    return [entry for target in targets for entry in _measured_entries(target)]


def _measured_entries(target: str) -> list[SuiteEntry]:
    known = [entry for entry in MEASURED if entry.target == target]
    return known or [SuiteEntry(target=target)]


@dataclass(frozen=True, kw_only=True)
class MeasuredRow(MeasuredPass):
    """One pass of a component as it ran; seconds by kind are those of the device."""

    seconds: dict[str, float]
    least_s: dict[str, float]  # on the report's roofline


@dataclass(frozen=True, kw_only=True)
class ComponentRow:
    """One pass of a component."""

    name: str
    num_params: int
    calls: int  # passes of a generation
    batch: int
    flops: int
    flash_s: float
    flash_speedup: float
    flops_share: dict[str, float]
    flash_s_share: dict[str, float]
    fused_s_share: dict[str, float]
    flops_by_kind: dict[str, int] = field(default_factory=dict)
    measured: tuple[MeasuredRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """One generation: every component with its steps and guidance; shares of the least time."""

    name: str
    stands_for: str
    main: str  # the component with most FLOPs
    num_params: int  # of it
    flops: int
    flash_s: float
    flash_speedup: float
    convolution: float
    linear: float
    attention: float
    elementwise: float
    covered: float
    components: tuple[ComponentRow, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    measured_in_s: float = 0.0  # building and measuring, all together

    def component(self, name: str) -> ComponentRow:
        """One of its components, which must exist."""
        return next(part for part in self.components if part.name == name)


def suite_row(report: Report, label: str, measured_in_s: float = 0.0) -> SuiteRow:
    """The row of a report under the name of its entry."""
    found = totals(report.components)
    total = overall(found.values())

    def share(*kinds: str) -> float:
        return sum(found[kind].flash_s for kind in kinds if kind in found) / total.flash_s

    return SuiteRow(
        name=label,
        stands_for=report.stands_for,
        main=report.main.name,
        num_params=report.main.num_params,
        flops=total.flops,
        flash_s=total.flash_s,
        flash_speedup=flash_speedup(report.components),
        convolution=share(CONVOLUTION),
        linear=share(LINEAR),
        attention=share(*ATTENTION),
        elementwise=share(ELEMENTWISE),
        covered=covered_share(report),
        components=tuple(_component_row(part) for part in report.components),
        sizes=report.sizes,
        measured_in_s=measured_in_s,
    )


def _component_row(part: ComponentReport) -> ComponentRow:
    found = totals([part], once=True)
    total = overall(found.values())
    return ComponentRow(
        name=part.name,
        num_params=part.num_params,
        calls=part.calls,
        batch=part.batch,
        flops=total.flops,
        flash_s=total.flash_s,
        flash_speedup=flash_speedup([part]),
        flops_share={kind: row.flops / max(1, total.flops) for kind, row in found.items()},
        flash_s_share={kind: row.flash_s / total.flash_s for kind, row in found.items()},
        fused_s_share={kind: row.fused_s / total.fused_s for kind, row in found.items()},
        flops_by_kind={kind: row.flops for kind, row in found.items()},
        measured=tuple(_measured_row(part, measured) for measured in part.measured),
    )


def _measured_row(part: ComponentReport, measured: Measured) -> MeasuredRow:
    shared = {entry.name: getattr(measured, entry.name) for entry in fields(MeasuredPass)}
    return MeasuredRow(
        **shared,
        seconds={entry.kind: entry.seconds for entry in measured.kinds},
        least_s=least_by_kind([part], measured.attention),
    )
