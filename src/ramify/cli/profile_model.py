"""`ramify profile model`: tables of one model, by component, kind and sequence length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ramify.cli.output import Output
from ramify.cli.profile_options import ProfileModelOptions
from ramify.cli.profile_settings import measure_settings
from ramify.cli.profile_tables import (
    component_table,
    kind_table,
    length_table,
    measured_note,
    measured_table,
    module_table,
    notes,
    operator_table,
    sweep_table,
)
from ramify.core.errors import InputError, expected_got
from ramify.profile.measure import MeasureSettings
from ramify.profile.model import characterise
from ramify.profile.page import save_page
from ramify.profile.report import (
    Report,
    SweepPoint,
    covered_share,
    measurements,
    save_report,
    unknown_ops,
)
from ramify.profile.sequence import length_trace, sweep


def execute(options: ProfileModelOptions, out: Output) -> int:
    """Characterise, print, write. Raises InputError and ConfigError as `characterise` does."""
    sizes = parse_sizes(options.size)
    report = _run(options, sizes, options.batch, measure_settings(options))
    if options.sweep:
        report = replace(report, sweep=_sweep(options, sizes))
    _say(report, out, with_trace=options.trace_lengths)
    if options.output is not None:
        save_report(report, options.output)
        out.say(f"report: {options.output}")
    if options.html is not None:
        save_page(report, options.html)
        out.say(f"page: {options.html}")
    out.document(
        {
            "covered_share": covered_share(report),
            "unknown_ops": unknown_ops(report),
            "report": report,
        }
    )
    return 0


def parse_sizes(texts: Sequence[str]) -> dict[str, int]:
    """Read `name=number` settings. Raises InputError for anything else."""
    sizes = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not value.isdecimal():
            raise InputError(expected_got("size", "name=number as in side=512", repr(text)))
        sizes[name] = int(value)
    return sizes


def _run(
    options: ProfileModelOptions,
    sizes: dict[str, int],
    batch: int,
    measured: MeasureSettings | None = None,
) -> Report:
    return characterise(
        Path(options.target) if Path(options.target).is_dir() else options.target,
        hardware=options.hardware,
        steps=options.steps,
        cfg=False if options.no_guidance else None,
        batch=batch,
        sizes=sizes,
        only=options.component or None,
        measured=measured,
    )


def _sweep(options: ProfileModelOptions, sizes: dict[str, int]) -> tuple[SweepPoint, ...]:
    name, *values = options.sweep
    if not values or not all(value.isdecimal() for value in values):
        wanted = "a size and numbers as in side 256 512"
        raise InputError(expected_got("sweep", wanted, " ".join(options.sweep)))

    def at(value: int) -> Report:
        if name == "batch":
            return _run(options, sizes, value)
        return _run(options, {**sizes, name: value}, options.batch)

    return sweep(at, name, [int(value) for value in values])


def _say(report: Report, out: Output, *, with_trace: bool) -> None:
    out.say(f"{report.title}" + (f" (stands for {report.stands_for})" if report.stands_for else ""))
    out.say(component_table(report))
    out.say()
    out.say(kind_table(report))
    if report.main.attention:
        out.say()
        out.say(length_table(report.main))
        if with_trace:
            out.say("trace: " + " ".join(map(str, length_trace(report.main))))
    for name, parts, measured in measurements(report):
        out.say()
        if measured.error is not None:
            out.warn(f"{name}, {measured.attention} attention: {measured.error}")
            continue
        out.say(measured_table(name, parts, measured))
        out.say(measured_note(measured))
        out.say(operator_table(measured))
        if measured.modules:
            out.say(module_table(measured))
    if report.sweep:
        out.say()
        out.say(sweep_table(report.sweep))
    out.say()
    for line in notes(report):
        out.say(line)
