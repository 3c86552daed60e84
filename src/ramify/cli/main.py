"""`ramify`: parse the flags, run the command, turn its errors into a line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import tyro

from ramify.cli import options as opt
from ramify.cli.output import Output
from ramify.core.env import sleep_while_waiting
from ramify.core.errors import RamifyError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

COMMANDS: dict[type, str] = {
    opt.RunOptions: "ramify.cli.run",
    opt.GenerateOptions: "ramify.cli.generate",
    opt.ShowOptions: "ramify.cli.show",
    opt.PlanOptions: "ramify.cli.plan",
    opt.BenchOptions: "ramify.cli.bench",
    opt.BenchBeamOptions: "ramify.cli.bench_beam",
    opt.BenchAttentionOptions: "ramify.cli.bench_attention",
    opt.BenchCalibrateOptions: "ramify.cli.bench_calibrate",
    opt.BenchDeftOptions: "ramify.cli.bench_deft",
    opt.BenchDeftEngineOptions: "ramify.cli.bench_deft_engine",
    opt.BenchLeanOptions: "ramify.cli.bench_lean",
    opt.BenchSearchOptions: "ramify.cli.bench_search",
    opt.BenchSoakOptions: "ramify.cli.bench_soak",
    opt.BenchSpeculationOptions: "ramify.cli.bench_speculation",
    opt.ProfileOptions: "ramify.cli.profile_step",
    opt.ProfileModelOptions: "ramify.cli.profile_model",
    opt.ProfileSuiteOptions: "ramify.cli.profile_suite",
    opt.ProfileCompareOptions: "ramify.cli.profile_compare",
    opt.ProfileRenderOptions: "ramify.cli.profile_render",
    opt.InfoOptions: "ramify.cli.info",
}
"""The modules whose `execute(options, out) -> int` does the work; loaded when they are needed."""

DESCRIPTION = "LLM inference for generation that branches: the shared prefix is read once."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 (the command ran and failed), 2 (bad input) or 130 (Ctrl-C)."""
    sleep_while_waiting()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(parse(arguments or ["--help"]))
    except SystemExit as stop:  # tyro ends so, after help and after a usage error
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    except KeyboardInterrupt:
        Output.warn("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our stdout went away (`ramify ... | head`); keep Python from complaining
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(options: opt.Options) -> int:
    """Carry out a parsed command."""
    out = Output(options.json)
    try:
        code: int = importlib.import_module(COMMANDS[type(options)]).execute(options, out)
    except RamifyError as error:
        return _report(error, out)
    return code


def parse(arguments: Sequence[str]) -> opt.Options:
    """The options of one command. Raises SystemExit after help, or with 2 after a usage error."""
    return tyro.cli(
        opt.Options,  # type: ignore[arg-type]
        prog="ramify",
        description=DESCRIPTION,
        args=arguments,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.DisallowNone,
        ),
    )


def _report(error: RamifyError, out: Output) -> int:
    """One line on stderr; with --json the same as a document."""
    message = " ".join(str(error).split())
    out.warn(f"error: {message}")
    out.document({"error": {"type": type(error).__name__, "message": message}})
    return BAD_INPUT
