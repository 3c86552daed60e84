"""`ramify bench deft`: what DeFT's workloads read, and on a GPU how long; tables as Markdown."""

from __future__ import annotations

from ramify.bench.attention.providers import names_of
from ramify.bench.attention.rows import AttentionRow
from ramify.bench.attention.run import Settings
from ramify.bench.deft.report import tables
from ramify.bench.deft.rows import DeftRow, read_json
from ramify.bench.deft.run import Times, count_providers, rows_of, time_workload
from ramify.bench.deft.workloads import Workload, workloads
from ramify.bench.env import Environment, environment
from ramify.bench.rows import append_rows
from ramify.cli.bench_options import BenchDeftOptions
from ramify.cli.bench_settings import bench_settings
from ramify.cli.output import Output
from ramify.cli.page_tables import show_tables
from ramify.core.errors import InputError, expected_got


def execute(options: BenchDeftOptions, out: Output) -> int:
    """Count, time where there is a GPU, print. Returns 1 when a provider failed its check."""
    if options.rows:
        rows, has_failed = [row for path in options.rows for row in read_json(path)], False
    else:
        rows, has_failed = _measured(options, out)
    made = tables(rows)
    show_tables(made, options.page, out)
    out.document({"rows": rows})
    return 1 if has_failed else 0


def _measured(options: BenchDeftOptions, out: Output) -> tuple[list[DeftRow], bool]:
    """Rows of all workloads, and whether a provider was wrong somewhere."""
    for name, least in (("points", 1), ("trees", 0)):
        if getattr(options, name) < least:
            raise InputError(expected_got(name, f"at least {least}", getattr(options, name)))
    settings, names = bench_settings(options), names_of(options.providers)
    if settings.device.type == "cpu":
        out.say("no GPU: bytes are counted, nothing is timed")
    if options.workloads is None:
        out.say("no --workloads: few-shot only")
    stamp = environment(settings.commit)
    rows: list[DeftRow] = []
    has_failed = False
    for workload in workloads(options.workloads, options.trees):
        out.say(f"{workload.name}: {len(workload.parts)} trees, {workload.num_steps} steps")
        fresh, wrong = _rows(workload, names, options, settings, stamp, out)
        rows += fresh
        has_failed |= wrong
    return rows, has_failed


def _rows(
    workload: Workload,
    names: list[str],
    options: BenchDeftOptions,
    settings: Settings,
    stamp: Environment,
    out: Output,
) -> tuple[list[DeftRow], bool]:
    """One workload: counts unless told not to, times on a GPU; rows go to the file as they come."""

    def progress(text: str) -> None:
        out.say(f"  {text}")

    counts = {} if options.times_only else count_providers(workload, names, progress)
    times: dict[str, Times] = {}
    steps: list[AttentionRow] = []
    if settings.device.type == "cuda":
        times, steps = time_workload(workload, names, options.points, settings, progress)
    rows = rows_of(workload, names, counts, times, stamp)
    if options.output is not None:
        append_rows(options.output, rows)
        append_rows(options.output, steps)
    return rows, any(row.status == "failed" for row in steps)
