"""`ramify bench lean`: stream-K against a fixed split and none; tables as Markdown."""

from __future__ import annotations

from ramify.bench.attention.lean import tables
from ramify.bench.attention.providers import names_of
from ramify.bench.attention.rows import AttentionRow, read_json
from ramify.bench.attention.run import bench_attention
from ramify.bench.attention.suites import suite
from ramify.bench.rows import append_rows
from ramify.cli.bench_options import BenchLeanOptions
from ramify.cli.bench_settings import bench_settings
from ramify.cli.output import Output
from ramify.cli.page_tables import show_tables
from ramify.core.errors import InputError, expected_got


def execute(options: BenchLeanOptions, out: Output) -> int:
    """Measure or read rows, print. Returns 1 when a provider failed its check or raised."""
    if options.rows:
        rows = [row for path in options.rows for row in read_json(path)]
    else:
        rows = _measured(options, out)
    made = tables(rows)
    show_tables(made, options.page, out)
    out.document({"rows": rows})
    return 1 if any(row.status == "failed" for row in rows) else 0


def _measured(options: BenchLeanOptions, out: Output) -> list[AttentionRow]:
    settings, names = bench_settings(options), names_of(options.providers)
    if settings.device.type != "cuda":
        raise InputError(expected_got("device", "an NVIDIA GPU, or --rows", settings.device))

    def done(rows: list[AttentionRow]) -> None:
        if options.output is not None:
            append_rows(options.output, rows)

    return bench_attention(suite("lean"), names, settings, out.say, done)
