"""`ramify bench calibrate`: the planner's cost table of this GPU, printed and written as JSON."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
from rich.table import Table

from ramify.bench.attention.calibrate import Calibration, calibrate
from ramify.cli.bench_options import BenchCalibrateOptions
from ramify.cli.bench_settings import bench_device
from ramify.cli.output import Output
from ramify.core.errors import InputError, expected_got


def execute(options: BenchCalibrateOptions, out: Output) -> int:
    """Measure and print. Raises InputError without a GPU."""
    if options.repeats < 1:
        raise InputError(expected_got("repeats", "at least 1", options.repeats))
    found = calibrate(
        bench_device(options.device),
        backend=options.backend,
        repeats=options.repeats,
        commit=options.commit,
    )
    sms = f"{found.num_busy_sms} of {found.num_sms} SMs at work"
    out.say(f"{found.environment.gpu}, {sms}, backend {found.backend}")
    for name, value in {**asdict(found.costs), "volume_us": found.volume_us}.items():
        out.say(f"  {name:<11}{value:8.3f}")
    out.say(_points(found))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    out.document(found)
    return 0


def _points(found: Calibration) -> Table:
    """What was measured, and what the table makes of it."""
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(("term", "method", "forest", "us", "predicted")):
        table.add_column(name, justify="right" if index > 2 else "left")
    for point in found.points:
        times = (f"{point.us:.1f}", f"{point.predicted_us:.1f}")
        table.add_row(point.term, point.method, point.shape, *times)
    return table
