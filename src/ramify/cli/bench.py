"""`ramify bench decode`: the table and the verdict on the bytes; rows as JSON."""

from __future__ import annotations

from rich.table import Table

from ramify import LLM
from ramify.attention.plan import METHODS
from ramify.bench.decode import bench_decode
from ramify.bench.rows import DecodeRow, append_rows
from ramify.bench.workloads import DecodeWorkload, FewShot, Recorded
from ramify.cli import bench_step
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_options import BenchOptions
from ramify.cli.output import Output
from ramify.cli.shapes import recorded_tree
from ramify.core.errors import InputError, expected_got

METHODS_COMPARED = ("per_branch", "flatten")
NEW_TOKENS = 64


def execute(options: BenchOptions, out: Output) -> int:
    """Measure and print. Returns 1 when a method read other bytes than its shape implies."""
    if options.shape:
        return bench_step.execute(options, out)
    methods = tuple(dict.fromkeys(options.methods or METHODS_COMPARED))
    check_methods(methods)
    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        engines = {method: LLM(**{**settings, "method": method}) for method in methods}
    workload = _workload(options, next(iter(engines.values())), out)
    rows = bench_decode(
        engines,
        workload,
        model_name=model_name,
        repeats=options.repeats,
        seed=options.seed,
        progress=lambda text: out.say(f"  {text}"),
    )
    out.say(_table(rows))
    for line in _conclusions(rows):
        out.say(line)
    if options.output is not None:
        append_rows(options.output, rows)
    out.document({"rows": rows})
    return 0 if all(row.are_bytes_as_expected for row in rows) else 1


def check_methods(methods: tuple[str, ...]) -> None:
    for method in methods:
        if method not in METHODS:
            raise InputError(expected_got("methods", f"any of {', '.join(METHODS)}", repr(method)))


def _workload(options: BenchOptions, llm: LLM, out: Output) -> DecodeWorkload:
    """The shape asked for, or a recorded tree, shrunk to the context where that is allowed."""
    if options.workload is None:
        shape = FewShot(
            prompt_tokens=options.prompt_tokens,
            branches=options.branches,
            new_tokens=NEW_TOKENS if options.new_tokens is None else options.new_tokens,
            seed=options.seed,
        )
        out.say(f"workload: {shape.name} tokens, decode steps only")
        return shape
    limit = llm.engine.limits.max_context
    tree = recorded_tree(options.workload, options.tree)
    title = f"{options.workload.name} tree {options.tree}"
    recorded = Recorded(tree=tree, title=title, seed=options.seed)
    if recorded.longest_path > limit and options.scale:
        before = recorded.longest_path
        title += f", lengths scaled from {before} to {limit} tokens of context"
        recorded = Recorded(tree=tree.scaled(limit), title=title, seed=options.seed)
    out.say(f"workload: {recorded.name}, {recorded.num_steps} decode steps")
    return recorded


def _table(rows: list[DecodeRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for name in (
        "attention ms",
        "step ms",
        "tok/s",
        "KV bytes read",
        "expected",
        "attention speedup",
        "KV saving",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.method,
            f"{row.attention_ms:.1f}",
            f"{row.step_ms:.2f}",
            f"{row.tok_per_s:.0f}",
            f"{row.kv_bytes_read:,}",
            "same" if row.are_bytes_as_expected else f"{row.kv_bytes_expected:,}",
            f"{row.attention_speedup:.2f}x",
            f"{row.kv_saving:.2f}x",
        )
    return table


def _conclusions(rows: list[DecodeRow]) -> list[str]:
    stamp = rows[0].environment
    is_exact = all(row.are_bytes_as_expected for row in rows)
    commit = (stamp.commit or "unknown")[:12] + (" with changes" if stamp.is_dirty else "")
    return [
        f"tokens: the same for {', '.join(row.method for row in rows)}",
        "KV bytes: counted while reading; "
        + ("equal to" if is_exact else "NOT equal to")
        + " the count from the shape",
        f"each step at its median of {rows[0].repeats} interleaved runs; {stamp.cpu}, "
        f"{stamp.torch_threads} threads, torch {stamp.libraries['torch']}, commit {commit}",
    ]
