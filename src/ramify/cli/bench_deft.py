"""`ramify bench deft`: what DeFT's workloads read, and on a GPU how long; tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ramify.bench.attention.providers import names_of
from ramify.bench.attention.run import Settings
from ramify.bench.deft.report import tables
from ramify.bench.deft.rows import DeftRow, read_json
from ramify.bench.deft.run import count_workload_rows, rows_of, time_workload
from ramify.bench.deft.workloads import Workload, workloads
from ramify.bench.env import environment
from ramify.bench.pages import fill_tables
from ramify.bench.rows import append_rows
from ramify.cli.bench_settings import bench_settings
from ramify.cli.options import BenchDeftOptions
from ramify.cli.output import Output
from ramify.core.errors import InputError, expected_got


def execute(options: BenchDeftOptions, out: Output) -> int:
    """Count, time where there is a GPU, print. Returns 1 when a provider failed its check."""
    if options.rows:
        rows = [row for path in options.rows for row in read_json(path)]
    else:
        rows = _measured(options, out)
    made = tables(rows)
    for name, table in made.items():
        out.say(f"\n{name}\n\n{table}", end="")
    if options.page is not None:
        fill_tables(options.page, made)
    out.document({"rows": rows})
    return 0
