"""`ramify profile suite`: every preset in one table, measured or not, and its reports as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from rich.progress import track

from ramify.bench.characterise import tables
from ramify.bench.env import environment
from ramify.bench.suite_result import SuiteResult, load_suite, save_suite
from ramify.cli.output import Output
from ramify.cli.page_tables import show_tables
from ramify.cli.profile_options import ProfileSuiteOptions
from ramify.cli.profile_own_step import own_step
from ramify.cli.profile_settings import measure_settings
from ramify.cli.profile_tables import measured_lines, suite_table
from ramify.core.errors import InputError, RamifyError, expected_got
from ramify.profile.hardware import find_hardware
from ramify.profile.measure import MeasureSettings
from ramify.profile.model import characterise
from ramify.profile.own_step import NAME as OWN_STEP
from ramify.profile.page import save_page
from ramify.profile.presets.preset import load_preset
from ramify.profile.report import Report, save_report
from ramify.profile.suite import SuiteEntry, SuiteRow, entries, suite_row


def execute(options: ProfileSuiteOptions, out: Output) -> int:
    """Characterise one after another; what fails is said and the rest goes on. 1 if any failed."""
    result = load_suite(options.rows) if options.rows else _run(options, out)
    out.say(suite_table(result.rows))
    out.say(
        "one generation: every component with its steps and guidance; naive: times as long as with "
        "flash attention; shares of the time with flash attention"
    )
    made = tables(result.rows)
    if options.output is not None:
        save_suite(result, options.output / "suite.json")
    show_tables(made, options.page, out)
    out.document(result)
    return 1 if result.failed else 0


def _run(options: ProfileSuiteOptions, out: Output) -> SuiteResult:
    settings = _settings(options)
    todo = entries(options.preset, is_measured=settings is not None)
    _check(todo, options.hardware)
    stamp = environment(options.commit)
    result = SuiteResult(hardware=options.hardware, rows=(), failed={}, environment=stamp)
    for entry in track(todo, console=out.console, transient=True, disable=not out.is_live):
        begin = perf_counter()
        try:
            report = _characterise(entry, options, settings)
        except (RamifyError, RuntimeError) as error:
            result.failed[entry.label] = str(error)
            out.warn(f"{entry.label}: {error}")
            continue
        row = suite_row(report, entry.label, perf_counter() - begin)
        result = replace(result, rows=(*result.rows, row))
        result.failed.update(_report_measured(row, out))
        if options.output is not None:
            _save(report, options.output, entry.label)
            # what is there stays, should a later one take the process with it
            save_suite(result, options.output / "suite.json")
    return result


def _settings(options: ProfileSuiteOptions) -> MeasureSettings | None:
    on_gpu = options.device.startswith("cuda")
    settings = measure_settings(options, ("eager", "graphs") if on_gpu else ("eager",))
    if settings is not None and not on_gpu and not options.preset:
        wanted = "cuda, or --preset with small ones, as billions of parameters take a CPU hours"
        raise InputError(expected_got("device", wanted, options.device))
    return settings


def _check(todo: list[SuiteEntry], hardware: str) -> None:
    """A typing slip is found before a minute of work."""
    find_hardware(hardware)
    for entry in todo:
        if entry.target != OWN_STEP and not Path(entry.target).is_dir():
            load_preset(entry.target)


def _characterise(
    entry: SuiteEntry, options: ProfileSuiteOptions, settings: MeasureSettings | None
) -> Report:
    if settings is not None and settings.trace is not None:
        settings = replace(settings, trace=settings.trace / _stem(entry.label))
    if entry.target == OWN_STEP:
        return own_step(options.hardware, settings)
    return characterise(
        Path(entry.target) if Path(entry.target).is_dir() else entry.target,
        hardware=options.hardware,
        batch=options.batch,
        sizes=entry.sizes,
        only=entry.only or None,
        measured=settings,
    )


def _report_measured(row: SuiteRow, out: Output) -> dict[str, str]:
    """Say what was measured; what could not be, by name."""
    for line in measured_lines(row):
        out.say(line)
    if row.components[0].measured:
        out.say(f"{row.name}: {row.measured_in_s:.1f} s in all")
    return dict(_errors(row, out))


def _errors(row: SuiteRow, out: Output) -> Iterator[tuple[str, str]]:
    for part in row.components:
        for measured in part.measured:
            if measured.error is not None:
                name = f"{row.name}, {part.name}, {measured.attention}, {measured.run}"
                out.warn(f"{name}: {measured.error}")
                yield name, measured.error


def _save(report: Report, folder: Path, label: str) -> None:
    save_report(report, folder / f"{_stem(label)}.json")
    save_page(report, folder / f"{_stem(label)}.html")


def _stem(label: str) -> str:
    return label.replace(" ", "-")
