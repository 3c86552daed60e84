"""`ramify bench decode --shape`: milliseconds of a decode step and what they are made of."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ramify.bench.rows import append_rows
from ramify.bench.step import StepBench, bench_steps
from ramify.bench.step_rows import StepRow, TimedRow
from ramify.bench.target import OURS
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_options import BenchOptions
from ramify.cli.bench_settings import bench_device
from ramify.cli.output import Output
from ramify.profile.shape import parse_shape

NEW_TOKENS = 200
COLUMNS = ("TTFT ms", "tok/s", "step ms", "floor", "%", "host µs", "launches", "idle", "GiB")


def execute(options: BenchOptions, out: Output) -> int:
    """Measure and print. Raises InputError for a shape or a peer that there is not."""
    shapes = [parse_shape(shape) for group in options.shape for shape in group]

    def done(row: StepRow) -> None:
        if options.output is not None:
            append_rows(options.output, [row])

    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        device = bench_device(options.engine.device)
        bench = StepBench(
            settings={**settings, "device": str(device)},
            model_name=model_name,
            shapes=shapes,
            methods=tuple(dict.fromkeys(options.methods or ("auto",))),
            peers=options.compare,
            new_tokens=NEW_TOKENS if options.new_tokens is None else options.new_tokens,
            repeats=options.repeats,
            seed=options.seed,
            commit=options.commit,
            progress=lambda text: out.say(f"  {text}"),
            done=done,
        )
        rows = bench_steps(bench)
    out.say(_table(rows))
    for line in _notes(rows):
        out.say(line)
    out.document({"rows": rows})
    return 1 if any(row.provider == OURS and row.reason for row in rows) else 0


def _table(rows: Sequence[StepRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("shape", "by"):
        table.add_column(name, no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            _shape(row),
            row.provider if row.method is None else row.method,
            number(row.first_token_ms, ".0f"),
            number(row.tok_per_s, ".0f"),
            number(row.step_ms, ".2f"),
            number(row.floor_ms, ".2f"),
            number(row.pct_of_floor, ".0f"),
            number(row.host_us, ".0f"),
            number(row.launches, ".0f"),
            "–" if row.idle_share is None else f"{100 * row.idle_share:.1f} %",
            "–" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.1f}",
        )
    return table


def number(value: float | None, style: str) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else format(value, style)


def ratio(row: TimedRow, ours: TimedRow) -> str:
    """How a peer's step compares with ours, or why it has none."""
    if row.step_ms is None:
        return f"{row.provider}: not run, {row.reason}"
    if ours.step_ms is None:
        return f"{row.provider}: nothing to compare with"
    slower = row.step_ms / ours.step_ms
    return f"{row.provider}: {slower:.2f} times the step of ramify"


def _notes(rows: Sequence[StepRow]) -> list[str]:
    """Ratios to the peer, reasons, and where it was measured."""
    ours = {_shape(row): row for row in reversed(rows) if row.provider == OURS}
    notes = [
        f"{_shape(row)}: {ratio(row, ours[_shape(row)])}" for row in rows if row.provider != OURS
    ]
    notes += [
        f"{_shape(row)}: {row.method} not run, {row.reason}"
        for row in rows
        if row.provider == OURS and row.reason
    ]
    first = rows[0]
    if first.first_run_s is not None:
        notes.append(f"first run: {first.first_run_s:.1f} s of compiling and capturing")
    notes.append(measured_on(first, f"copy rate {first.copy_gb_per_s:.0f} GB/s"))
    return notes


def measured_on(row: TimedRow, *more: str) -> str:
    """Repeats, machine, versions and commit on one line."""
    stamp = row.environment
    commit = (stamp.commit or "unknown")[:12] + (" with changes" if stamp.is_dirty else "")
    parts = [
        f"step = (time for {row.new_tokens} tokens - time for 1) / {row.new_tokens - 1}, medians "
        f"of {row.repeats}",
        f"{stamp.gpu if row.device.startswith('cuda') else stamp.cpu}, {row.dtype}",
        *more,
        f"torch {stamp.libraries['torch']}, commit {commit}",
    ]
    return "; ".join(parts)


def _shape(row: StepRow) -> str:
    return f"{row.prompt_tokens},{row.branches},{row.trees}"
