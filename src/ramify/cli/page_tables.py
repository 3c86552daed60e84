"""Tables made of rows: printed, and put where a Markdown page marks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ramify.bench.pages import fill_tables
from ramify.cli.output import Output


def show_tables(made: Mapping[str, str], page: Path | None, out: Output) -> None:
    """Print tables by name; with a page, fill it too."""
    for name, table in made.items():
        out.say(f"\n{name}\n\n{table}", end="")
    if page is not None:
        fill_tables(page, made)
