"""`ramify bench beam`: milliseconds of a step of beam search, by width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ramify.bench.beam import BeamBench, bench_beams
from ramify.bench.rows import append_rows
from ramify.bench.step_rows import BeamRow
from ramify.bench.target import OURS
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_options import BenchBeamOptions
from ramify.cli.bench_settings import bench_device
from ramify.cli.bench_step import measured_on, number, ratio
from ramify.cli.output import Output

EQUAL = {None: "–", True: "yes", False: "no"}


def execute(options: BenchBeamOptions, out: Output) -> int:
    """Measure and print. Returns 1 when a width could not be searched."""

    def done(row: BeamRow) -> None:
        if options.output is not None:
            append_rows(options.output, [row])

    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        bench = BeamBench(
            settings={**settings, "device": str(bench_device(options.engine.device))},
            model_name=model_name,
            prompt_tokens=options.prompt_tokens,
            beam_widths=options.beam_width,
            peers=options.compare,
            new_tokens=options.new_tokens,
            repeats=options.repeats,
            seed=options.seed,
            commit=options.commit,
            progress=lambda text: out.say(f"  {text}"),
            done=done,
        )
        rows = bench_beams(bench)
    out.say(_table(rows))
    ours = {row.beam_width: row for row in rows if row.provider == OURS}
    for row in rows:
        if row.provider != OURS:
            out.say(f"{row.beam_width} beams: {ratio(row, ours[row.beam_width])}")
        elif row.reason:
            out.say(f"{row.beam_width} beams: not run, {row.reason}")
    out.say(measured_on(rows[0]))
    out.document({"rows": rows})
    return 1 if any(row.reason for row in ours.values()) else 0


def _table(rows: Sequence[BeamRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("prompt", "beams", "by"):
        table.add_column(name)
    for name in ("TTFT ms", "step ms", "floor", "%", "GiB", "same beams"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.prompt_tokens),
            str(row.beam_width),
            row.provider,
            number(row.first_token_ms, ".0f"),
            number(row.step_ms, ".2f"),
            number(row.floor_ms, ".2f"),
            number(row.pct_of_floor, ".0f"),
            "–" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.1f}",
            EQUAL[row.are_beams_equal],
        )
    return table
