"""`ramify bench attention`: a table per case, verdicts against the peers; rows as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ramify.bench.attention.plot import plot_rows
from ramify.bench.attention.providers import names_of
from ramify.bench.attention.rows import AttentionRow
from ramify.bench.attention.run import bench_attention
from ramify.bench.attention.shapes import Case, Heads, parse_levels
from ramify.bench.attention.suites import suite
from ramify.bench.attention.summary import (
    Verdict,
    geometric_means,
    slower_than_a_peer,
    verdicts,
)
from ramify.bench.rows import append_rows
from ramify.cli.bench_growing import growing_rows
from ramify.cli.bench_options import BenchAttentionOptions
from ramify.cli.bench_settings import bench_settings
from ramify.cli.output import Output
from ramify.cli.shapes import recorded_shape
from ramify.core.errors import InputError, expected_got

DEFAULT_SUITES = ("fasttree", "deft")


def execute(options: BenchAttentionOptions, out: Output) -> int:
    """Measure and print. Returns 1 when a provider failed its check or raised."""
    settings = bench_settings(options)
    cases, names = _cases(options), names_of(options.providers)
    if not names and options.growing_steps < 1:
        raise InputError(expected_got("providers", "some, or growing_steps above 0", "none"))

    def done(rows: list[AttentionRow]) -> None:
        out.say(_table(rows))
        if options.output is not None:
            append_rows(options.output, rows)

    rows = []
    if names:
        rows = bench_attention(cases, names, settings, lambda text: out.say(f"\n{text}"), done)
    plans = []
    if options.growing_steps > 0:
        plans = growing_rows(options, names, _heads(options), settings, out)
    if plans and options.output is not None:
        append_rows(options.output, plans)
    if rows:
        _conclude(rows, verdicts(rows), out)
    if options.plot is not None:
        plot_rows(rows, options.plot)
    out.document({"rows": rows, "plans": plans})
    return 1 if any(row.status == "failed" for row in rows) else 0


def _cases(options: BenchAttentionOptions) -> list[Case]:
    heads = _heads(options)
    cases = [Case(suite="shape", tree=parse_levels(shape), heads=heads) for shape in options.shape]
    if options.workload is not None:
        where = (options.workload, options.tree, options.iteration)
        tree = recorded_shape(*where, prompt_tokens=options.prompt_tokens)
        cases.append(Case(suite="workload", tree=tree, heads=heads))
    suites = options.suite or (() if cases else DEFAULT_SUITES)
    return [*(case for name in suites for case in suite(name)), *cases]


def _heads(options: BenchAttentionOptions) -> Heads:
    words = options.heads.split("/")
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise InputError(expected_got("heads", "query/KV, as in 32/8", repr(options.heads)))
    num_q_heads, num_kv_heads = map(int, words)
    if num_kv_heads < 1 or num_q_heads < 1 or num_q_heads % num_kv_heads:
        raise InputError(expected_got("heads", "a multiple of the KV heads", repr(options.heads)))
    return Heads(num_q_heads=num_q_heads, num_kv_heads=num_kv_heads, head_dim=options.head_dim)


def _table(rows: Sequence[AttentionRow]) -> Table:
    first = rows[0]
    title = (
        f"{first.num_rows} rows, {first.unique_tokens} tokens, sharing {first.sharing:.1f}, "
        f"floor {first.floor_us:.1f} us ({first.floor_kind})"
    )
    table = _new_table(
        "provider", "p50 us", "p20", "p80", "% floor", "GB/s", "plan us", "host", "error"
    )
    table.title, table.title_justify = title, "left"
    for row in rows:
        if row.status != "timed":
            table.add_row(row.provider, row.status, *[""] * 7)
            continue
        table.add_row(
            row.provider + (f" ({row.method})" if ":auto" in row.provider else ""),
            *(_number(x) for x in (row.p50_us, row.p20_us, row.p80_us, row.pct_of_floor)),
            *(_number(x) for x in (row.unique_gb_per_s, row.plan_step_us, row.plan_host_us)),
            "" if row.error_ratio is None else f"{row.error_ratio:.2f}",
        )
    return table


def _conclude(rows: Sequence[AttentionRow], found: Sequence[Verdict], out: Output) -> None:
    reasons = {(row.provider, row.status, row.reason): 0 for row in rows if row.reason}
    for row in rows:
        if row.reason:
            reasons[row.provider, row.status, row.reason] += 1
    for (provider, status, reason), count in reasons.items():
        out.say(f"{provider} {status} on {count} cases: {reason}")
    table = _new_table("case", "heads", "floor us", "auto us", "best us", "peer us", "speedup")
    for one in found:
        table.add_row(
            one.shape,
            one.heads,
            f"{one.floor_us:.1f}",
            _number(None if one.auto is None else one.auto.p50_us),
            _named(one.ours),
            _named(one.peer),
            "" if one.speedup is None else f"{one.speedup:.2f}x",
        )
    out.say(table)
    for name, (mean, count) in geometric_means(found).items():
        out.say(f"geometric mean over the best peer, {name}: {mean:.2f}x ({count} cases)")
    for one in slower_than_a_peer(found):
        assert one.peer is not None
        out.say(
            f"slower than {one.peer.provider}: {one.suite} {one.heads} {one.shape}, "
            f"{one.speedup:.2f}x"
        )
    out.say(
        f"copy {rows[0].copy_gb_per_s:.0f} GB/s, gemm {rows[0].gemm_tflop_per_s:.1f} TFLOP/s, "
        f"measured in this run; timing: {rows[0].timing}"
    )


def _new_table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _named(row: AttentionRow | None) -> str:
    return "" if row is None else f"{row.p50_us:.1f} {row.provider.partition(':')[2]}"
