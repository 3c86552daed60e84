"""The part of `ramify bench attention` that plans a growing tree: a row per provider of ours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ramify.attention import METHODS, TreeAttention
from ramify.bench.attention.growing import Growth, bench_plan
from ramify.bench.attention.rows import PlanRow
from ramify.bench.attention.run import Settings
from ramify.bench.attention.shapes import Heads
from ramify.bench.env import environment
from ramify.cli.bench_options import BenchAttentionOptions
from ramify.cli.output import Output
from ramify.core.errors import BackendUnavailable

AUTO = "ramify:auto"


def growing_rows(
    options: BenchAttentionOptions,
    providers: Sequence[str],
    heads: Heads,
    settings: Settings,
    out: Output,
) -> list[PlanRow]:
    """Plan times of those providers that plan, of `ramify:auto` where none does."""
    growth = Growth(
        steps=options.growing_steps,
        branches=options.growing_branches,
        nodes=options.growing_nodes,
        prompt=options.growing_prompt,
        repeats=settings.repeats,
    )
    stamp = environment(settings.commit)
    rows = []
    for name in [name for name in providers if _method(name)] or [AUTO]:
        try:
            op = _open(name, heads, settings)
        except BackendUnavailable as error:
            out.say(f"{name} skipped: {error}")
            continue
        rows.append(bench_plan(op, name, heads, stamp, growth))
    if rows:
        out.say(_title(growth, rows[0]))
        out.say(_table(rows))
    return rows


def _method(name: str) -> str | None:
    """The method of a provider of ours, None of others."""
    house, _, rest = name.partition(":")
    method = rest.partition("@")[0]
    return method if house == "ramify" and method in ("auto", *METHODS) else None


def _open(name: str, heads: Heads, settings: Settings) -> TreeAttention:
    return TreeAttention(
        heads.num_q_heads,
        heads.num_kv_heads,
        heads.head_dim,
        settings.dtype,
        settings.device,
        _method(name) or "auto",
        name.partition("@")[2] or "auto",
    )


def _title(growth: Growth, row: PlanRow) -> str:
    waiting = ", synchronisation forbidden" if row.is_sync_forbidden else ""
    return (
        f"\nhost time of a step's plan, us{waiting}: {growth.steps} steps of {growth.branches} "
        f"branches over {growth.prompt} tokens; all of {growth.nodes} nodes; after "
        f"{row.few_nodes_changed} of them changed"
    )


def _table(rows: Sequence[PlanRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    names = "provider append p80 advanced fork/prune p80 all p80 few p80".split()
    for index, name in enumerate([*names, "total ms"]):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row.provider,
            *_times(row.append_p50_us, row.append_p80_us),
            f"{row.num_advanced}/{row.steps - row.num_changes}",
            *_times(row.change_p50_us, row.change_p80_us),
            *_times(row.full_p50_us, row.full_p80_us),
            *_times(row.few_p50_us, row.few_p80_us),
            f"{row.total_ms:.0f}",
        )
    return table


def _times(*values: float) -> list[str]:
    return [f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in values]
