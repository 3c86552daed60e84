"""`ramify profile render`: the page of a saved report."""

from __future__ import annotations

from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileRenderOptions
from ramify.profile.page import save_page
from ramify.profile.report import load_report


def execute(options: ProfileRenderOptions, out: Output) -> int:
    """Read, draw, write. Raises InputError for a file that holds no report."""
    save_page(load_report(options.report), options.html)
    out.say(f"page: {options.html}")
    out.document({"page": str(options.html)})
    return 0
