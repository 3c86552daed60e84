"""`ramify profile compare`: two models, or two saved reports, kind by kind."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileCompareOptions
from ramify.cli.profile_tables import percent
from ramify.profile.compare import Difference, compare
from ramify.profile.model import characterise
from ramify.profile.report import Report, load_report


def execute(options: ProfileCompareOptions, out: Output) -> int:
    """Characterise or load both and print the differences."""
    reports = [_report(name, options.hardware) for name in (options.first, options.second)]
    rows = compare(*reports)
    out.say(_table(reports, rows))
    machines = " and ".join(dict.fromkeys(report.hardware.name for report in reports))
    out.say(f"a whole generation at batch {reports[0].batch} and {reports[1].batch}; {machines}")
    out.document({"names": [report.name for report in reports], "rows": rows})
    return 0


def _report(name: str, hardware: str) -> Report:
    if name.endswith(".json"):
        return load_report(Path(name))
    return characterise(Path(name) if Path(name).is_dir() else name, hardware=hardware)


def _table(reports: list[Report], rows: list[Difference]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("kind")
    for column in ("TFLOP", "flash ms", "share"):
        for report in reports:
            table.add_column(f"{column}\n{report.name}", justify="right")
    for row in rows:
        table.add_row(
            row.kind,
            *(f"{flops / 1e12:.3f}" for flops in row.flops),
            *(f"{seconds * 1e3:.2f}" for seconds in row.flash_s),
            *(percent(share) for share in row.time_share),
        )
    return table
