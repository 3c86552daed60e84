"""`ramify bench soak`: random mixed load, and what it found."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from ramify import LLM
from ramify.bench.rows import append_rows
from ramify.bench.soak import Soak, SoakReport, soak
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_options import BenchSoakOptions
from ramify.cli.output import Output


def execute(options: BenchSoakOptions, out: Output) -> int:
    """Run and print. Returns 1 when something was wrong, and says how to repeat it."""
    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        run = Soak(
            llm=LLM(**{**settings, "prefix_cache": options.engine.prefix_cache}),
            model_name=model_name,
            minutes=options.minutes,
            seed=options.seed,
            first_round=options.first_round,
            rounds=options.rounds,
            commit=options.commit,
            progress=lambda text: out.say(f"  {text}"),
        )
        report = soak(run)
    out.say(_table(report))
    if report.violation is not None:
        out.say(report.violation)
        out.say(_how_to_repeat(report))
    if options.output is not None:
        append_rows(options.output, [report])
    out.document(report)
    return 0 if report.violation is None else 1


def _table(report: SoakReport) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    steps = f"{report.steps} in {report.rounds} rounds, {report.seconds / 60:.1f} minutes"
    tokens = f"{report.generated_tokens} generated ({report.tok_per_s:.0f}/s)"
    tokens += f", {report.computed_tokens} computed, {report.cached_tokens} from the prefix cache"
    rechecks = f"{report.rechecked_branches} branches of {report.rechecked_tokens} tokens"
    rechecks += f" and {report.rechecked_beams} beam searches: {report.near_ties} near ties"
    logprobs = f"differ by at most {report.worst_logprob_difference:.1e}"
    logprobs += f" a token, {report.tolerance:.0e} allowed"
    memory = f"{report.grown_mib:+.0f} MiB on the host, {report.grown_gpu_mib:+.0f} MiB on the GPU"
    for name, text in (
        ("steps", steps),
        ("requests", _counts(report.requests)),
        ("expected errors", _counts(report.errors)),
        ("aborts, preemptions", f"{report.aborts}, {report.preemptions}"),
        ("tokens", tokens),
        ("re-checked alone", rechecks),
        ("log-probabilities", logprobs),
        ("memory since round 1", memory),
        ("verdict", "nothing wrong" if report.violation is None else "WRONG"),
    ):
        table.add_row(name, text)
    return table


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered) or "none"


def _how_to_repeat(report: SoakReport) -> str:
    return (
        f"step {report.violation_step} of the run; to repeat the round, with the same engine "
        f"flags: --seed {report.seed} --first-round {report.violation_round} --rounds 1"
    )
