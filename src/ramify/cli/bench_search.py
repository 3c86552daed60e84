"""`ramify bench search`: what node handles save over resending, and whether the trees are equal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ramify import LLM
from ramify.bench.dummy import is_dummy
from ramify.bench.dummy_tokenizer import write_dummy_tokenizer
from ramify.bench.rows import append_rows
from ramify.bench.search.rows import HANDLES, SearchRow
from ramify.bench.search.run import SearchBench, bench_searches
from ramify.bench.search.searches import SearchShape
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_settings import bench_device
from ramify.cli.bench_tree_options import BenchSearchOptions
from ramify.cli.output import Output
from ramify.models import read_config

COLUMNS = ("wall ms", "steps", "requests", "generated", "prefill", "handles save", "95 %")


def execute(options: BenchSearchOptions, out: Output) -> int:
    """Measure and print. Returns 1 when float32 trees of a search differ."""

    def done(row: SearchRow) -> None:
        if options.output is not None:
            append_rows(options.output, [row])

    shape = SearchShape(
        width=options.width,
        depth=options.depth,
        step_tokens=options.step_tokens,
        prompt_tokens=options.prompt_tokens,
    )
    device = str(bench_device(options.engine.device))
    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        if is_dummy(options.engine.model):
            directory = Path(str(settings["model"]))
            write_dummy_tokenizer(directory, read_config(directory).vocab_size)
        llm = LLM(**{**settings, "device": device, "prefix_cache": True})
    with llm:
        bench = SearchBench(
            llm=llm,
            model_name=model_name,
            algorithms=tuple(dict.fromkeys(options.algorithms)),
            shape=shape,
            repeats=options.repeats,
            seed=options.seed,
            commit=options.commit,
            progress=lambda text: out.say(f"  {text}"),
            done=done,
        )
        rows = bench_searches(bench)
    out.say(_table(rows))
    for line in _notes(rows):
        out.say(line)
    out.document({"rows": rows})
    return 1 if any(row.num_nodes_apart and row.dtype == "float32" for row in rows) else 0


def _table(rows: Sequence[SearchRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("search", "form"):
        table.add_column(name, no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.algorithm,
            row.form,
            f"{row.wall_s * 1e3:.1f}",
            str(row.steps),
            str(row.requests),
            str(row.generated_tokens),
            str(row.prefill_tokens),
            *_saving(row),
        )
    return table


def _saving(row: SearchRow) -> tuple[str, str]:
    """How much of this form's time handles save, and its interval."""
    if row.saving is None or row.saving_low is None or row.saving_high is None:
        return "–", "–"
    interval = f"{100 * row.saving_low:.1f} to {100 * row.saving_high:.1f}"
    return f"{100 * row.saving:.1f} %", interval


def _notes(rows: Sequence[SearchRow]) -> list[str]:
    """What was equal, and where it was measured."""
    first = rows[0]
    stamp = first.environment
    commit = (stamp.commit or "unknown")[:12] + (" with changes" if stamp.is_dirty else "")
    others = [row for row in rows if row.form != HANDLES]
    notes = [
        f"{row.algorithm} by {row.form}: {row.num_nodes_apart} of {row.num_nodes} nodes differ "
        "from the handles' tree"
        for row in others
        if row.num_nodes_apart
    ]
    return [
        *(notes or ["trees: the same in every form"]),
        f"width {first.width}, depth {first.depth}, {first.step_tokens} tokens a step, prompt of "
        f"{first.prompt_tokens}; medians of {first.repeats}, savings paired, Student's t",
        f"{stamp.gpu if first.device.startswith('cuda') else stamp.cpu}, {first.dtype}, "
        f"torch {stamp.libraries['torch']}, commit {commit}",
    ]
