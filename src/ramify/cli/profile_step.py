"""`ramify profile step`: a trace of steady decode steps, and a table of where their time goes."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from ramify import LLM
from ramify.bench.env import environment
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_settings import bench_device
from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileOptions
from ramify.profile.shape import parse_shape
from ramify.profile.step import StepProfile, profile_step


def execute(options: ProfileOptions, out: Output) -> int:
    """Profile, write the trace, print. Raises InputError for a shape or a path that cannot be."""
    shape = parse_shape(options.shape)
    with bench_model(options.engine) as (model_name, settings):
        device = str(bench_device(options.engine.device))
        llm = LLM(**{**settings, "device": device, "method": options.method})
        out.say(f"model: {model_name}")
        out.say(f"{llm.startup}")
        found = profile_step(
            llm,
            shape,
            path=options.trace,
            num_timed=options.timed_steps,
            num_traced=options.steps,
            seed=options.seed,
        )
    out.say(_table(found))
    for line in _notes(found):
        out.say(line)
    out.say(f"trace: {options.trace}, for ui.perfetto.dev or chrome://tracing")
    out.document(
        {
            "model": model_name,
            "device": device,
            "backend": llm.engine.executor.attention.backend,
            "profile": found,
            "trace": str(options.trace),
            "environment": environment(options.commit),
        }
    )
    return 0


def _table(found: StepProfile) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part of a step")
    for name in ("µs", "share", "launches"):
        table.add_column(name, justify="right")
    for group in found.groups:
        share = f"{100 * group.share:.1f} %"
        table.add_row(group.group, f"{group.us:.1f}", share, f"{group.launches:.1f}")
    idle_us = found.idle_share * found.traced_step_us
    table.add_row("idle", f"{idle_us:.1f}", f"{100 * found.idle_share:.1f} %", "")
    total = f"{found.launches:.1f}"
    table.add_row("a traced step", f"{found.traced_step_us:.1f}", "", total, style="bold")
    return table


def _notes(found: StepProfile) -> Iterator[str]:
    yield (
        f"shape {found.shape}: {found.step_us:.0f} µs a step by the clock over {found.num_timed} "
        f"steps, {found.traced_step_us:.0f} µs under the profiler over {found.num_traced}"
    )
    if found.host_us is None:
        yield "host: not told apart from the device (a CPU, or steps that do not run ahead)"
    else:
        yield f"host: {found.host_us:.0f} µs a step at work, the rest it waits for the device"
