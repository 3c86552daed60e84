"""`ramify bench deft-engine`: DeFT's workloads by the whole engine; a table as Markdown."""

from __future__ import annotations

from ramify.bench.deft.engine import EngineBench, bench_engines
from ramify.bench.deft.engine_report import engine_table
from ramify.bench.deft.engine_rows import DeftEngineRow, read_json
from ramify.bench.deft.growths import Sizes, engine_workloads
from ramify.bench.rows import append_rows
from ramify.cli.bench import check_methods
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_options import BenchDeftEngineOptions
from ramify.cli.bench_settings import bench_device
from ramify.cli.output import Output
from ramify.cli.page_tables import show_tables


def execute(options: BenchDeftEngineOptions, out: Output) -> int:
    """Grow, print. Returns 1 when float32 methods gave other tokens than the first one."""
    if options.rows:
        rows = [row for path in options.rows for row in read_json(path)]
    else:
        rows = _measured(options, out)
    made = engine_table(rows)
    show_tables(made, options.page, out)
    apart = [row for row in rows if row.num_nodes_apart]
    for row in apart:
        out.say(
            f"{row.workload} by {row.method}: {row.num_nodes_apart} of {row.num_nodes} nodes have "
            f"other tokens than by {row.baseline} ({row.dtype})"
        )
    out.document({"rows": rows})
    return 1 if any(row.dtype == "float32" for row in apart) else 0


def _measured(options: BenchDeftEngineOptions, out: Output) -> list[DeftEngineRow]:
    check_methods(options.methods)
    sizes = Sizes(
        few_shot_prompt=options.prompt_tokens,
        few_shot_tokens=options.new_tokens,
        num_trees=options.trees,
        longest_path=options.longest_path,
        draft_tokens=options.draft_tokens,
    )
    workloads = engine_workloads(options.workloads, sizes, options.only)
    device = bench_device(options.engine.device)
    if options.workloads is None:
        out.say("no --workloads: few-shot only")
    if device.type == "cpu":
        out.say("no GPU: these times say nothing of DeFT")

    def done(row: DeftEngineRow) -> None:
        if options.output is not None:
            append_rows(options.output, [row])

    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        bench = EngineBench(
            settings={**settings, "device": str(device)},
            model_name=model_name,
            methods=tuple(dict.fromkeys(options.methods)),
            workloads=workloads,
            seed=options.seed,
            commit=options.commit,
            progress=lambda text: out.say(f"  {text}"),
            done=done,
        )
        return bench_engines(bench)
