"""`ramify profile render`: the page of a saved report, with counters of Nsight Compute if asked."""

from __future__ import annotations

from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileRenderOptions
from ramify.cli.profile_tables import cache_table
from ramify.profile.counters import read_counters, with_counters
from ramify.profile.page import save_page
from ramify.profile.report import load_report, save_report


def execute(options: ProfileRenderOptions, out: Output) -> int:
    """Read, draw, write. Raises InputError for a file that holds no report, or no counters."""
    report = load_report(options.report)
    if options.ncu is not None:
        report = with_counters(report, read_counters(options.ncu))
        out.say(cache_table(report))
    if options.output is not None:
        save_report(report, options.output)
        out.say(f"report: {options.output}")
    save_page(report, options.html)
    out.say(f"page: {options.html}")
    out.document({"page": str(options.html), "cache": report.cache})
    return 0
