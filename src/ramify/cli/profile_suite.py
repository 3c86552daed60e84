"""`ramify profile suite`: every preset in one table, and its reports as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table

from ramify.bench.env import environment
from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileSuiteOptions
from ramify.core.errors import RamifyError
from ramify.profile.model import characterise
from ramify.profile.operators.kinds import ATTENTION, CONVOLUTION, ELEMENTWISE, LINEAR
from ramify.profile.page import save_page
from ramify.profile.presets.preset import load_preset, preset_names
from ramify.profile.report import ComponentReport, Report, covered_share, save_report
from ramify.profile.totals import flash_speedup, overall, totals


def execute(options: ProfileSuiteOptions, out: Output) -> int:
    """Characterise one after another; what fails is said and the rest goes on. 1 if any failed."""
    names = options.preset or preset_names()
    for name in names:
        load_preset(name)  # a typing slip is found before a minute of work
    reports, failed = [], {}
    for name in track(names, console=out.console, transient=True, disable=not out.is_live):
        try:
            reports.append(characterise(name, hardware=options.hardware))
        except RamifyError as error:
            failed[name] = str(error)
            out.warn(f"{name}: {error}")
            continue
        if options.output is not None:
            _save(reports[-1], options.output)
    out.say(_table(reports))
    out.say(
        "one generation: every component with its steps and guidance; naive: times as long as with "
        "flash attention; shares of the time with flash attention"
    )
    out.document(
        {
            "hardware": options.hardware,
            "rows": [_row(report) for report in reports],
            "failed": failed,
            "environment": environment(options.commit),
        }
    )
    return 1 if failed else 0


def _save(report: Report, folder: Path) -> None:
    save_report(report, folder / f"{report.name}.json")
    save_page(report, folder / f"{report.name}.html")


def _row(report: Report) -> dict[str, Any]:
    found = totals(report.components)
    total = overall(found.values())

    def share(*kinds: str) -> float:
        return sum(found[kind].flash_s for kind in kinds if kind in found) / total.flash_s

    return {
        "name": report.name,
        "stands_for": report.stands_for,
        "main": report.main.name,
        "num_params": report.main.num_params,
        "flops": total.flops,
        "flash_s": total.flash_s,
        "flash_speedup": flash_speedup(report.components),
        "convolution": share(CONVOLUTION),
        "linear": share(LINEAR),
        "attention": share(*ATTENTION),
        "elementwise": share(ELEMENTWISE),
        "covered": covered_share(report),
        "components": [_component(part) for part in report.components],
    }


def _component(part: ComponentReport) -> dict[str, Any]:
    """One pass of a component."""
    found = totals([part], once=True)
    total = overall(found.values())
    return {
        "name": part.name,
        "num_params": part.num_params,
        "calls": part.calls,
        "batch": part.batch,
        "flops": total.flops,
        "flash_s": total.flash_s,
        "flash_speedup": flash_speedup([part]),
        "flops_share": {kind: row.flops / total.flops for kind, row in found.items()},
        "flash_s_share": {kind: row.flash_s / total.flash_s for kind, row in found.items()},
        "fused_s_share": {kind: row.fused_s / total.fused_s for kind, row in found.items()},
    }


def _table(reports: Sequence[Report]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("preset")
    columns = "main|params B|TFLOP|flash s|naive|conv|linear|attn|elem|cover"
    for name in columns.split("|"):
        table.add_column(name, justify="right")
    for row in map(_row, reports):
        shares = (row[k] for k in ("convolution", "linear", "attention", "elementwise", "covered"))
        table.add_row(
            row["name"],
            row["main"],
            f"{row['num_params'] / 1e9:.3f}",
            f"{row['flops'] / 1e12:.4g}",
            f"{row['flash_s']:.3g}",
            f"x{row['flash_speedup']:.2f}",
            *(f"{100 * share:.0f} %" for share in shares),
        )
    return table
