"""`ramify profile compare`: two models, or two saved reports, kind by kind."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileCompareOptions
from ramify.cli.profile_tables import percent
from ramify.profile.compare import Difference, MeasuredPair, compare, compare_measured
from ramify.profile.model import characterise
from ramify.profile.report import Report, load_report


def execute(options: ProfileCompareOptions, out: Output) -> int:
    """Characterise or load both and print the differences."""
    reports = [_report(name, options.hardware) for name in (options.first, options.second)]
    rows = compare(*reports)
    out.say(_table(reports, rows))
    machines = " and ".join(dict.fromkeys(report.hardware.name for report in reports))
    out.say(f"a whole generation at batch {reports[0].batch} and {reports[1].batch}; {machines}")
    pairs = compare_measured(*reports)
    if pairs:
        out.say()
        out.say(_measured_table(pairs))
    names = [report.name for report in reports]
    out.document({"names": names, "rows": rows, "measured": pairs})
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


def _measured_table(pairs: list[MeasuredPair]) -> Table:
    """A pass as both have measured it; intervals that do not meet are another time."""
    table = Table(box=None, pad_edge=False)
    table.add_column("measured pass")
    for column in ("ms", "ms, other", "ratio", "intervals"):
        table.add_column(column, justify="right")
    for pair in pairs:
        sides = zip(pair.wall_s, pair.low_s, pair.high_s, strict=True)
        table.add_row(
            f"{pair.name}, {pair.attention}, {pair.run}",
            *(
                f"{wall * 1e3:.2f} ({low * 1e3:.2f} to {high * 1e3:.2f})"
                for wall, low, high in sides
            ),
            f"{pair.wall_s[1] / pair.wall_s[0]:.2f}",
            "meet" if pair.agree else "apart",
        )
    return table
